// Package record keeps what the NFS exporters of a node have been told, as comment lines in the configuration file of the
// server itself: one file, written whole, says what is served and why. It also turns access rules into what NFS servers
// understand. It does not know any server's syntax, nor whether a server does what its file says.
package record

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// prefix begins every line of a record. To exports(5) and to Ganesha it is a comment.
const prefix = "# cairn: "

// Entry is one export that the exporter was told to serve.
type Entry struct {
	Spec drivers.ExportSpec
	// Withdrawn: it is served to nobody any more, and what clients still hold of it is being taken away.
	Withdrawn bool
	// Number is an identity that some servers want: unique among the entries, not 0, and kept while the entry lives.
	Number uint16
}

// Record is the set of entries and fences of one exporter. It is not safe for concurrent use.
type Record struct {
	entries map[drivers.ExportID]Entry
	fences  map[cairn.ReplicaID]uint64
}

// line is the JSON of one line; exactly one field is set.
type line struct {
	Export *Entry `json:",omitempty"`
	Fence  *fence `json:",omitempty"`
}

type fence struct {
	Replica cairn.ReplicaID
	Below   uint64
}

// New returns an empty record.
func New() *Record {
	return &Record{entries: make(map[drivers.ExportID]Entry), fences: make(map[cairn.ReplicaID]uint64)}
}

// Parse reads the record's lines among others. Lines that are damaged are left out, and described in damage.
func Parse(text []byte) (r *Record, damage []string) {
	r = New()
	for number, row := range strings.Split(string(text), "\n") {
		body, ok := strings.CutPrefix(row, prefix)
		if !ok {
			continue
		}
		if err := r.read(body); err != nil {
			damage = append(damage, fmt.Sprintf("line %d: %v", number+1, err))
		}
	}
	return r, damage
}

func (r *Record) read(body string) error {
	var l line
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&l); err != nil {
		return err
	}
	switch {
	case l.Export != nil && Name(l.Export.Spec) != "":
		if _, err := Clients(l.Export.Spec.Rules, false); err != nil {
			return err
		}
		r.entries[l.Export.Spec.ID] = *l.Export
	case l.Fence != nil && isUUID(string(l.Fence.Replica)):
		r.fences[l.Fence.Replica] = l.Fence.Below
	default:
		return fmt.Errorf("neither an export nor a fence")
	}
	return nil
}

// Lines renders the record, in order. Parse of it gives an equal record.
func (r *Record) Lines() []byte {
	var out bytes.Buffer
	for _, entry := range r.Entries() {
		writeLine(&out, line{Export: &entry})
	}
	for _, replica := range slices.Sorted(maps.Keys(r.fences)) {
		writeLine(&out, line{Fence: &fence{Replica: replica, Below: r.fences[replica]}})
	}
	return out.Bytes()
}

func writeLine(out *bytes.Buffer, l line) {
	body, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings, numbers and lists of them
	}
	out.WriteString(prefix)
	out.Write(body)
	out.WriteByte('\n')
}

// Entries lists all entries in order of replica, then snapshot.
func (r *Record) Entries() []Entry {
	return slices.SortedFunc(maps.Values(r.entries), func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Spec.ID.Replica, b.Spec.ID.Replica), cmp.Compare(a.Spec.ID.Snapshot, b.Spec.ID.Snapshot))
	})
}

// Entry returns the entry of an export.
func (r *Record) Entry(id drivers.ExportID) (Entry, bool) {
	e, ok := r.entries[id]
	return e, ok
}

// Put enters spec, or replaces what is there. cairn.ErrStale if its epoch is below the one that is recorded or fenced.
func (r *Record) Put(spec drivers.ExportSpec) error {
	old, known := r.entries[spec.ID]
	floor := max(r.fences[spec.ID.Replica], old.Spec.Epoch)
	if spec.Epoch < floor {
		return fmt.Errorf("epoch %d is below %d: %w", spec.Epoch, floor, cairn.ErrStale)
	}
	number := old.Number
	if !known || old.Spec.Root != spec.Root {
		var err error
		if number, err = r.freeNumber(Name(spec)); err != nil {
			return err
		}
	}
	spec.Rules = slices.Clone(spec.Rules)
	r.entries[spec.ID] = Entry{Spec: spec, Number: number}
	return nil
}

// Withdraw marks the export as served to nobody. Of what is not recorded it does nothing.
func (r *Record) Withdraw(id drivers.ExportID) {
	if e, ok := r.entries[id]; ok {
		e.Withdrawn = true
		r.entries[id] = e
	}
}

// Remove forgets an export.
func (r *Record) Remove(id drivers.ExportID) { delete(r.entries, id) }

// Fence refuses lower epochs of the replica from now on, and withdraws its export if it has one. It reports whether there
// is something of a lower epoch to be taken away.
//
// A fence outlives the export: an order from before it may still be on its way. It costs a line per replica.
func (r *Record) Fence(replica cairn.ReplicaID, below uint64) (withdrawn bool) {
	r.fences[replica] = max(r.fences[replica], below)
	id := drivers.ExportID{Replica: replica}
	if e, ok := r.entries[id]; !ok || e.Spec.Epoch >= below {
		return false
	}
	r.Withdraw(id)
	return true
}

// Served is the entry that answers under each name: of two replicas of a share on this node the writable one, then the one
// of the higher epoch.
func (r *Record) Served() map[string]Entry {
	served := make(map[string]Entry)
	for _, e := range r.Entries() {
		name := Name(e.Spec)
		if now, taken := served[name]; !e.Withdrawn && (!taken || outranks(e.Spec, now.Spec)) {
			served[name] = e
		}
	}
	return served
}

func outranks(a, b drivers.ExportSpec) bool {
	if ReadOnly(a) != ReadOnly(b) {
		return ReadOnly(b)
	}
	return a.Epoch > b.Epoch
}

// ReadOnly reports whether nobody may write, whatever the rules say.
func ReadOnly(spec drivers.ExportSpec) bool { return spec.ReadOnly || spec.ID.Snapshot != "" }

// freeNumber starts at a hash of the name, so that a number is not soon used again for something else: a client may still
// hold handles that carry it.
func (r *Record) freeNumber(name string) (uint16, error) {
	used := make(map[uint16]bool)
	for _, e := range r.entries {
		used[e.Number] = true
	}
	hash := uint32(2166136261) // FNV-1a
	for _, b := range []byte(name) {
		hash = (hash ^ uint32(b)) * 16777619
	}
	const numbers = 1<<16 - 1 // 0 is not one
	if len(used) >= numbers {
		return 0, fmt.Errorf("%d exports are the most that the server has numbers for: %w", numbers, cairn.ErrCapacity)
	}
	for number := hash; ; number++ {
		if candidate := uint16(number%numbers) + 1; !used[candidate] {
			return candidate, nil
		}
	}
}

// Name is the last element of the path under which clients find the export: the snapshot's ID or the share's, the same on
// every node. It is "" if an ID of the spec is not a UUID.
func Name(spec drivers.ExportSpec) string {
	name := string(spec.Share)
	if spec.ID.Snapshot != "" {
		name = string(spec.ID.Snapshot)
	}
	if !isUUID(name) || !isReplica(string(spec.ID.Replica)) {
		return ""
	}
	return name
}

// isReplica reports whether text is a UUID, or what a drill names the clone of a replica: something plain, and then its UUID.
func isReplica(text string) bool {
	before := max(0, len(text)-36)
	return isUUID(text[before:]) && !strings.ContainsFunc(text[:before], func(c rune) bool {
		return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-')
	})
}

// isUUID reports whether text is a UUID as Cairn writes it: lower case, with dashes.
func isUUID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i, c := range []byte(text) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !strings.ContainsRune("0123456789abcdef", rune(c)) {
			return false
		}
	}
	return true
}
