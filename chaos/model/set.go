package model

import (
	"fmt"
	"slices"
	"strings"
)

// set is the state of the model of named values. It is never changed, only replaced. Entries are in order of name.
type set struct{ entries []entry }

type entry struct {
	name, value string
	leaving     bool // removed, and some node has not enforced it yet
}

func (s set) equal(other set) bool { return slices.Equal(s.entries, other.entries) }

func (s set) String() string {
	var all []string
	for _, e := range s.entries {
		all = append(all, fmt.Sprintf("%+v", e))
	}
	return strings.Join(all, " ")
}

// find returns the entry of that name, if it is one that counts, and its place.
func (s set) find(name string) (value string, there bool, at int) {
	at, found := slices.BinarySearchFunc(s.entries, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
	if !found {
		return "", false, -1
	}
	return s.entries[at].value, !s.entries[at].leaving, at
}

func (s set) put(name, value string, leaving bool) set {
	next := slices.Clone(s.entries)
	at, found := slices.BinarySearchFunc(next, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
	if !found {
		next = slices.Insert(next, at, entry{})
	}
	next[at] = entry{name, value, leaving}
	return set{next}
}

func (s set) step(kind Kind, in Input, out Output, known bool) (set, bool) {
	value, there, at := s.find(in.Name)
	if known && out.Refusal != "" {
		switch out.Refusal {
		case NotFound:
			there = there && (in.ID == "" || in.ID == value) // one whose ID nobody has been told may be another
			return s, (kind == Get || kind == Remove) && !there
		case Exists:
			return s, there && (kind == Add || kind == Put && value != in.Value)
		}
		return s, true
	}
	switch kind {
	case Put:
		if there && value != in.Value {
			return s, !known
		}
		return s.put(in.Name, in.Value, false), true
	case Add:
		if there {
			return s, !known
		}
		return s.put(in.Name, out.ID, false), true
	case Set:
		return s.put(in.Name, in.Value, false), true
	case Get:
		return s, there && len(out.Items) == 1 && out.Items[0].Value == value
	case List:
		return s.list(out.Items)
	case Remove:
		if at < 0 || !hits(value, in.ID) {
			return s, !known
		}
		return s.put(in.Name, value, true), true
	case Replace:
		return s.replace(in.Items), true
	}
	return s, false
}

// hits reports whether a request that names an ID, or none, is about an entry with the value. "" is an ID that nobody has seen yet.
func hits(value, id string) bool { return id == "" || value == "" || value == id }

// list is the state if these are all entries that count. What is leaving may be shown or not.
func (s set) list(items []Item) (set, bool) {
	for _, item := range items {
		value, there, _ := s.find(item.Name)
		if item.Leaving == there || there && !hits(value, item.Value) {
			return s, false
		}
		if there && value == "" {
			s = s.put(item.Name, item.Value, false)
		}
	}
	for _, e := range s.entries {
		if !e.leaving && !slices.ContainsFunc(items, func(item Item) bool { return item.Name == e.name }) {
			return s, false
		}
	}
	return s, true
}

func (s set) replace(items []Item) set {
	next := s
	for _, e := range s.entries {
		next = next.put(e.name, e.value, true)
	}
	for _, item := range items {
		next = next.put(item.Name, item.Value, false)
	}
	return next
}
