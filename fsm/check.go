package fsm

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cairn-storage/cairn"
)

// Bounds of what users may write; those of metadata are Manila's.
const (
	maxID            = 64
	maxDescription   = 1024
	maxMetadataKey   = 255
	maxMetadataValue = 1023
	maxMetadata      = 128
)

// checkID refuses identifiers that would be ambiguous in a key. They are minted by programs, so the message is for a
// programmer.
func checkID[ID ~string](kind cairn.Kind, id ID) error {
	bad := func(r rune) bool { return !(r == '-' || r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r))) }
	if id == "" || len(id) > maxID || slices.ContainsFunc([]rune(string(id)), bad) {
		return cause(cairn.ErrInvalid, "%s identifier %.80q: want 1 to %d letters, digits and dashes", kind, string(id), maxID)
	}
	return nil
}

// checkText refuses text that would break a terminal or a table. Newlines and tabs are allowed if lines is set.
func checkText(what, text string, limit int, lines bool) error {
	if len(text) > limit {
		return cause(cairn.ErrInvalid, "%s: has %d bytes, at most %d are allowed", what, len(text), limit)
	}
	if !utf8.ValidString(text) {
		return cause(cairn.ErrInvalid, "%s: is not valid UTF-8", what)
	}
	for _, r := range text {
		if unicode.IsControl(r) && !(lines && (r == '\n' || r == '\t')) {
			return cause(cairn.ErrInvalid, "%s: character %q is not allowed", what, r)
		}
	}
	return nil
}

// checkObjectName refuses names that cannot be an entry of a pool. Which ones a pool allows beyond that its driver knows.
func checkObjectName(name string) error {
	if name == "" || name == "." || name == ".." || slices.Contains([]byte(name), '/') {
		return cause(cairn.ErrInvalid, "object name %q: want the name of an entry of the pool", name)
	}
	return checkText("object name", name, cairn.MaxNameLength, false)
}

func checkMetadata(metadata map[string]string) error {
	if len(metadata) > maxMetadata {
		return cause(cairn.ErrInvalid, "metadata: has %d keys, at most %d are allowed", len(metadata), maxMetadata)
	}
	for _, key := range sortedKeys(metadata) {
		if key == "" {
			return cause(cairn.ErrInvalid, "metadata: a key is empty")
		}
		if err := checkText("metadata key", key, maxMetadataKey, false); err != nil {
			return err
		}
		if err := checkText(fmt.Sprintf("metadata value of %q", key), metadata[key], maxMetadataValue, true); err != nil {
			return err
		}
	}
	return nil
}

// sortedKeys exists because errors are part of the result, and so may not depend on the order of a map.
func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// canonicalClient is how the Who of an ip rule is stored: a single address without a prefix length.
func canonicalClient(prefix netip.Prefix) string {
	if prefix.IsSingleIP() {
		return prefix.Addr().String()
	}
	return prefix.String()
}

// become is the only place where a status changes.
func become(ref cairn.Ref, status *cairn.Status, next cairn.Status) error {
	if !status.CanBecome(next) {
		return cause(cairn.ErrPrecondition, "%s: is %s and cannot become %s", ref, *status, next)
	}
	*status = next
	return nil
}

// since keeps the time at which a fault began: a fault that is found again is the same fault.
func (tx *Tx) since(old, found cairn.Fault) cairn.Fault {
	found.Message = brief(found.Message)
	switch {
	case found.Healthy():
		return cairn.Fault{}
	case found.Code == old.Code && found.Message == old.Message:
		return old
	case found.At == 0:
		found.At = tx.meta.At
	}
	return found
}

// brief cuts what a storage tool said to what fits a row and an event.
func brief(message string) string {
	if len(message) <= maxDescription {
		return message
	}
	return strings.ToValidUTF8(message[:maxDescription], "") + "…"
}
