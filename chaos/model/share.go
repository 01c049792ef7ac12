package model

import (
	"fmt"
	"slices"
	"strings"
)

// Refusals are the names of the sentinel errors that the models tell apart; every other one may always be answered, and
// changed nothing.
const (
	NotFound     = "not found"
	Exists       = "already exists"
	InUse        = "in use"
	Busy         = "busy"
	Precondition = "precondition not met"
)

// shareRow is a share of a slot. A row whose ID is "" was made by a request without an answer: nobody has seen it yet.
type shareRow struct {
	id, name, value string
	size            int64
	pending         []int64 // sizes that were asked for since size was seen, in this order
	epoch           uint64  // at least
	leaving         bool    // its node may be done with the deletion at any time
	snapshots       []snapshotRow
}

type snapshotRow struct {
	id, name string
	leaving  bool
}

// slot is the state of the model of shares. It is never changed, only replaced.
type slot struct{ rows []shareRow }

func (s slot) equal(other slot) bool {
	return slices.EqualFunc(s.rows, other.rows, func(a, b shareRow) bool {
		return a.id == b.id && a.name == b.name && a.value == b.value && a.size == b.size && a.epoch == b.epoch && a.leaving == b.leaving &&
			slices.Equal(a.pending, b.pending) && slices.Equal(a.snapshots, b.snapshots)
	})
}

func (s slot) String() string {
	var rows []string
	for _, r := range s.rows {
		rows = append(rows, fmt.Sprintf("%+v", r))
	}
	return strings.Join(rows, " ")
}

// by finds a row; -1 if there is none.
func (s slot) by(id, name string) int {
	return slices.IndexFunc(s.rows, func(r shareRow) bool {
		if id != "" {
			return r.id == id
		}
		return r.name == name
	})
}

func (s slot) with(i int, change func(*shareRow)) slot {
	next := slot{slices.Clone(s.rows)}
	row := &next.rows[i]
	row.pending, row.snapshots = slices.Clone(row.pending), slices.Clone(row.snapshots)
	change(row)
	return next
}

func (s slot) without(i int) slot {
	if i < 0 {
		return s
	}
	return slot{slices.Delete(slices.Clone(s.rows), i, i+1)}
}

// add keeps rows in order of name, so that equal states are equal slices.
func (s slot) add(row shareRow) slot {
	next := slot{append(slices.Clone(s.rows), row)}
	return next.sorted()
}

func (s slot) sorted() slot {
	slices.SortFunc(s.rows, func(a, b shareRow) int { return strings.Compare(a.name, b.name) })
	return s
}

// gone is the state in which the row i, which is being deleted, or none at all, is not there.
func (s slot) gone(i int) (slot, bool) {
	if i < 0 {
		return s, true
	}
	return s.without(i), s.rows[i].leaving
}

// step is one operation at one moment: whether it may have been answered so, and the state after it. What nodes do in the
// background, such as the end of a deletion, shows in answers, and is taken to have happened just before.
func (s slot) step(kind Kind, in Input, out Output, known bool) (slot, bool) {
	if known && out.Refusal != "" {
		return s.refuse(kind, in, out.Refusal)
	}
	switch kind {
	case CreateShare:
		return s.create(in, out, known)
	case GetShare:
		if len(out.Items) != 1 || in.ID != "" && out.Items[0].ID != in.ID || in.ID == "" && out.Items[0].Name != in.Name {
			return s, false
		}
		return s.see(out.Items[0])
	case ListShares:
		return s.list(out.Items)
	}
	i := s.by(in.ID, "")
	if kind == DeleteSnapshot {
		i = s.holder(in.ID)
	}
	if i < 0 || s.rows[i].leaving && kind != DeleteShare && kind != ListSnapshots {
		return s, !known // what is not there cannot have been changed
	}
	switch kind {
	case UpdateShare:
		return s.with(i, func(r *shareRow) { r.value = in.Value }), true
	case RenameShare:
		return s.rename(i, in.Name, known)
	case ResizeShare:
		return s.with(i, func(r *shareRow) { r.pending = append(r.pending, in.Size) }), true
	case DeleteShare:
		if slices.ContainsFunc(s.rows[i].snapshots, func(r snapshotRow) bool { return !r.leaving }) {
			return s, !known
		}
		return s.with(i, func(r *shareRow) { r.leaving, r.snapshots = true, nil }), true
	case CreateSnapshot:
		return s.snapshot(i, in, out, known)
	case ListSnapshots:
		return s.listSnapshots(i, out.Items)
	case DeleteSnapshot:
		return s.with(i, func(r *shareRow) {
			at := slices.IndexFunc(r.snapshots, func(r snapshotRow) bool { return r.id == in.ID })
			r.snapshots[at].leaving = true
		}), true
	}
	return s, false
}

// holder is the share that has a snapshot of that ID.
func (s slot) holder(snapshot string) int {
	return slices.IndexFunc(s.rows, func(r shareRow) bool {
		return slices.ContainsFunc(r.snapshots, func(r snapshotRow) bool { return r.id == snapshot })
	})
}

func (s slot) create(in Input, out Output, known bool) (slot, bool) {
	i := s.by("", in.Name)
	if i >= 0 && !s.rows[i].leaving {
		row := s.rows[i] // the same wish again is answered with what it has made
		if !known {
			return s, true
		}
		if row.value != in.Value || row.size != in.Size && !slices.Contains(row.pending, in.Size) || row.id != "" && row.id != out.ID {
			return s, false
		}
		return s.with(i, func(r *shareRow) { r.id = out.ID }), true
	}
	if out.ID != "" && s.by(out.ID, "") >= 0 {
		return s, false
	}
	return s.without(i).add(shareRow{id: out.ID, name: in.Name, value: in.Value, size: in.Size}), true
}

func (s slot) rename(i int, name string, known bool) (slot, bool) {
	j := s.by("", name)
	if j >= 0 && j != i {
		if !s.rows[j].leaving {
			return s, !known
		}
		id := s.rows[i].id
		s = s.without(j)
		i = s.by(id, "")
	}
	return s.with(i, func(r *shareRow) { r.name = name }).sorted(), true
}

// see is the state if the share is as the item shows it.
func (s slot) see(item Item) (slot, bool) {
	i := s.by(item.ID, "")
	if i < 0 {
		if i = s.by("", item.Name); i < 0 || s.rows[i].id != "" {
			return s, false
		}
	}
	row := s.rows[i]
	at := slices.Index(row.pending, item.Size)
	if row.name != item.Name || row.value != item.Value || row.leaving != item.Leaving || item.Epoch < row.epoch || at < 0 && row.size != item.Size {
		return s, false
	}
	return s.with(i, func(r *shareRow) {
		r.id, r.size, r.epoch = item.ID, item.Size, item.Epoch
		if row.size != item.Size {
			r.pending = r.pending[at+1:]
		}
	}), true
}

// list is the state if these are all shares of the slot.
func (s slot) list(items []Item) (slot, bool) {
	for _, item := range items {
		var ok bool
		if s, ok = s.see(item); !ok {
			return s, false
		}
	}
	for i := len(s.rows) - 1; i >= 0; i-- {
		if slices.ContainsFunc(items, func(item Item) bool { return item.ID == s.rows[i].id }) {
			continue
		}
		if !s.rows[i].leaving {
			return s, false
		}
		s = s.without(i)
	}
	return s, true
}

func (s slot) snapshot(i int, in Input, out Output, known bool) (slot, bool) {
	row := s.rows[i]
	at := slices.IndexFunc(row.snapshots, func(r snapshotRow) bool { return r.name == in.Name })
	if at >= 0 && !row.snapshots[at].leaving {
		return s, !known
	}
	return s.with(i, func(r *shareRow) {
		if at >= 0 {
			r.snapshots = slices.Delete(r.snapshots, at, at+1)
		}
		r.snapshots = append(r.snapshots, snapshotRow{id: out.ID, name: in.Name})
		sortSnapshots(r.snapshots)
	}), true
}

func sortSnapshots(rows []snapshotRow) {
	slices.SortFunc(rows, func(a, b snapshotRow) int { return strings.Compare(a.name, b.name) })
}

// listSnapshots is the state if these are all snapshots of the share.
func (s slot) listSnapshots(i int, items []Item) (slot, bool) {
	row, seen := s.rows[i], []snapshotRow{}
	for _, item := range items {
		at := slices.IndexFunc(row.snapshots, func(r snapshotRow) bool {
			return r.name == item.Name && r.leaving == item.Leaving && (r.id == item.ID || r.id == "")
		})
		if at < 0 {
			return s, false
		}
		seen = append(seen, snapshotRow{item.ID, item.Name, item.Leaving})
	}
	for _, r := range row.snapshots {
		if !r.leaving && !slices.ContainsFunc(seen, func(other snapshotRow) bool { return other.name == r.name }) {
			return s, false
		}
	}
	sortSnapshots(seen)
	return s.with(i, func(r *shareRow) { r.snapshots = seen }), true
}

// refuse is the state in which the request is refused so.
func (s slot) refuse(kind Kind, in Input, refusal string) (slot, bool) {
	i := s.by(in.ID, in.Name)
	if in.ID != "" && kind == DeleteSnapshot {
		i = s.holder(in.ID)
	}
	switch refusal {
	case NotFound:
		switch kind {
		case CreateShare:
			return s, false
		case DeleteSnapshot:
			return s.snapshotGone(i, in.ID)
		}
		return s.gone(i)
	case Exists:
		return s, s.taken(kind, i, in.Name)
	case InUse:
		return s, kind != DeleteShare || i >= 0 && len(s.rows[i].snapshots) > 0
	case Precondition:
		return s, kind != UpdateShare && kind != RenameShare || i >= 0 && s.rows[i].leaving
	}
	return s, true
}

func (s slot) snapshotGone(i int, id string) (slot, bool) {
	if i < 0 || s.rows[i].leaving {
		return s, true
	}
	at := slices.IndexFunc(s.rows[i].snapshots, func(r snapshotRow) bool { return r.id == id })
	if !s.rows[i].snapshots[at].leaving {
		return s, false
	}
	return s.with(i, func(r *shareRow) { r.snapshots = slices.Delete(r.snapshots, at, at+1) }), true
}

// taken reports whether the name that the request wants is another one's.
func (s slot) taken(kind Kind, i int, name string) bool {
	switch kind {
	case CreateShare:
		return i >= 0
	case RenameShare:
		j := s.by("", name)
		return j >= 0 && j != i
	case CreateSnapshot:
		return i >= 0 && slices.ContainsFunc(s.rows[i].snapshots, func(r snapshotRow) bool { return r.name == name })
	}
	return false
}
