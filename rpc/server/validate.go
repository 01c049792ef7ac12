package server

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/cairn-storage/cairn"
)

// What users may write, so that no request fills the log with what package fsm would refuse anyway.
const (
	maxDescription   = 1024
	maxMetadata      = 128
	maxMetadataKey   = 255
	maxMetadataValue = 1023
	maxRules         = 1024
)

// checkName is cairn.CheckName, and keeps names apart from identifiers: both are accepted in the same places.
func checkName(kind cairn.Kind, name string) error {
	if err := cairn.CheckName(string(kind), name); err != nil {
		return err
	}
	if isID(name) {
		return fmt.Errorf("%s name %q: has the form of an ID: %w", kind, name, cairn.ErrInvalid)
	}
	return nil
}

func checkDescription(text string) error {
	if len(text) > maxDescription {
		return fmt.Errorf("description: has %d bytes, at most %d are allowed: %w", len(text), maxDescription, cairn.ErrInvalid)
	}
	return nil
}

func checkMetadata(metadata map[string]string) error {
	if len(metadata) > maxMetadata {
		return fmt.Errorf("metadata: has %d keys, at most %d are allowed: %w", len(metadata), maxMetadata, cairn.ErrInvalid)
	}
	for key, value := range metadata {
		switch {
		case key == "":
			return fmt.Errorf("metadata: a key is empty: %w", cairn.ErrInvalid)
		case len(key) > maxMetadataKey:
			return fmt.Errorf("metadata key %s: has %d bytes, at most %d are allowed: %w", shown(key), len(key), maxMetadataKey, cairn.ErrInvalid)
		case len(value) > maxMetadataValue:
			return fmt.Errorf("metadata value of %s: has %d bytes, at most %d are allowed: %w", shown(key), len(value), maxMetadataValue, cairn.ErrInvalid)
		}
	}
	return nil
}

// checkObject refuses names of objects in a pool that are not one plain name there.
func checkObject(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("object: name is missing: %w", cairn.ErrInvalid)
	case len(name) > cairn.MaxNameLength:
		return fmt.Errorf("object %s: has %d bytes, at most %d are allowed: %w", shown(name), len(name), cairn.MaxNameLength, cairn.ErrInvalid)
	case strings.HasPrefix(name, "."), strings.ContainsRune(name, '/'), strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("object %s: want the plain name of an entry in the pool, without / and not beginning with a dot: %w", shown(name), cairn.ErrInvalid)
	}
	return nil
}

// parseProtocol reads the protocol of a request; "" is the default.
func parseProtocol(text string) (cairn.Protocol, error) {
	switch p := cairn.Protocol(text); p {
	case "":
		return cairn.ProtocolWebDAV, nil
	case cairn.ProtocolWebDAV, cairn.ProtocolNFS:
		return p, nil
	}
	return "", fmt.Errorf("protocol %s: want webdav or nfs: %w", shown(text), cairn.ErrInvalid)
}

// lifetime turns a count of units in a request into a duration; 0 is the default.
func lifetime(what string, count int64, unit, byDefault, longest time.Duration) (time.Duration, error) {
	switch {
	case count == 0:
		return byDefault, nil
	case count < 0 || count > int64(longest/unit):
		return 0, fmt.Errorf("%s: must be at least 1 and at most %d: %w", what, longest/unit, cairn.ErrInvalid)
	}
	return time.Duration(count) * unit, nil
}

// parseRule reads an access rule of a request.
func parseRule(kind, who, level string, ofSnapshot bool) (cairn.AccessRule, error) {
	rule := cairn.AccessRule{Kind: cairn.AccessKind(kind), Who: who, Level: cairn.AccessLevel(level)}
	if level == "" && ofSnapshot {
		rule.Level = cairn.AccessRO
	}
	switch {
	case rule.Level != cairn.AccessRW && rule.Level != cairn.AccessRO:
		return rule, fmt.Errorf("access level %s: want rw or ro: %w", shown(level), cairn.ErrInvalid)
	case ofSnapshot && rule.Level == cairn.AccessRW:
		return rule, fmt.Errorf("access level rw: a snapshot can only be read; use ro: %w", cairn.ErrInvalid)
	}
	var err error
	rule.Who, err = parseWho(rule.Kind, who)
	return rule, err
}

// parseWho checks whom a rule is for, and brings it into the form that rules are compared in.
func parseWho(kind cairn.AccessKind, who string) (string, error) {
	switch kind {
	case cairn.AccessIP:
		prefix, err := cairn.ParseClient(who)
		if err != nil {
			return "", oneLineClient(who, err)
		}
		if prefix.IsSingleIP() {
			return prefix.Addr().String(), nil
		}
		return prefix.String(), nil
	case cairn.AccessUser:
		return who, cairn.CheckName("user", who)
	case cairn.AccessCert:
		if who == "" || len(who) > cairn.MaxNameLength || strings.ContainsFunc(who, unicode.IsControl) {
			return "", fmt.Errorf("common name %s: want 1 to %d printable bytes: %w", shown(who), cairn.MaxNameLength, cairn.ErrInvalid)
		}
		return who, nil
	}
	return "", fmt.Errorf("access kind %s: want ip, user or cert: %w", shown(string(kind)), cairn.ErrInvalid)
}

// oneLineClient keeps what the user wrote from filling the screen.
func oneLineClient(who string, err error) error {
	if len(who) <= 60 {
		return err
	}
	return fmt.Errorf("client %s: is neither an address nor a CIDR: %w", shown(who), cairn.ErrInvalid)
}
