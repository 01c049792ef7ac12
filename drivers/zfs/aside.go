package zfs

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cairn-storage/cairn"
)

// A rollback destroys every snapshot that is newer. So a revert past newer ones turns the replica around instead: a clone of
// the wanted snapshot takes all snapshots up to that one over (zfs promote), and then the replica's name; the dataset that had
// it keeps the newer ones, aside. All of these datasets carry the replica's mark, each depends on another one through its
// origin, and that is how they are found.
//
//	<replica>              what counts, if it is there
//	<replica>-turn         a revert under way; what counts while <replica> is not there
//	<replica>-aside-<n>    newer snapshots that a revert has left behind; gone with the last of them
//	<replica>-in           what a full stream goes into: see receive.go
const (
	turnSuffix     = "-turn"
	asideInfix     = "-aside-"
	incomingSuffix = "-in"
)

// related lists the datasets beside that are named as the origin or a clone of what is in rows, and were not seen yet.
func (o *op) related(rows []row, seen map[string]bool) []string {
	var names []string
	for _, r := range rows {
		origin, _, _ := strings.Cut(r["origin"], "@")
		for _, name := range append(strings.Split(r["clones"], ","), origin) {
			if strings.HasPrefix(name, o.at(o.id)) && !strings.Contains(name[len(o.dataset)+1:], "/") && !seen[name] && rank(o.at(o.id), name) != 8 {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// gather takes in the rows of snapshots, bookmarks, and datasets beside.
func (f *found) gather(id cairn.ReplicaID, rows []row) {
	for _, r := range rows {
		switch name := r["name"]; {
		case r["type"] != "filesystem" && r["type"] != "volume":
		case strings.HasPrefix(name, f.at+"/"):
			f.below = append(f.below, name)
		case r["cairn:id"] == string(id) && path.Dir(name) == path.Dir(f.at) && name != f.at:
			f.beside = append(f.beside, r)
		}
	}
	for _, r := range rows {
		at, mark, isMark := strings.Cut(r["name"], "#")
		switch {
		case isMark && at == f.at:
			f.bookmarks[mark] = r.number("createtxg")
		case r["type"] != "snapshot" || f.dataset(r) == nil:
		case r["defer_destroy"] == "on":
			f.doomed = append(f.doomed, r)
		default:
			f.snapshots = append(f.snapshots, r)
		}
	}
}

// dataset is the row of the dataset that a snapshot is of; nil if it is not of this replica.
func (f found) dataset(snapshot row) row {
	at, _, _ := strings.Cut(snapshot["name"], "@")
	for _, r := range append([]row{f.row}, f.beside...) {
		if r["name"] == at {
			return r
		}
	}
	return nil
}

// originOf is the row of the dataset that another one of this replica depends on; nil if there is none.
func (f found) originOf(r row) row { return f.dataset(row{"name": r["origin"]}) }

// besideAt is the row of a dataset beside, or nil.
func (f found) besideAt(name string) row {
	at := slices.IndexFunc(f.beside, func(r row) bool { return r["name"] == name })
	if at < 0 {
		return nil
	}
	return f.beside[at]
}

// newer are the snapshots of the replica's own dataset that are newer than one, whoever's they are.
func (f found) newer(than row) []row {
	return slices.DeleteFunc(slices.Concat(f.snapshots, f.doomed), func(r row) bool {
		at, _, _ := strings.Cut(r["name"], "@")
		return at != f.at || r.number("createtxg") <= than.number("createtxg")
	})
}

// turn takes a replica back to a snapshot that cannot be reached by a rollback. The rename that takes the replica's name away
// from what it was is what counts: before it a crash is undone by the next call, after it the rest is done.
func (o *op) turn(f found, r row) error {
	err := o.prepareTurn(f, r)
	if err == nil {
		err = o.zfs("set", "cairn:state="+string(stateAside), f.at)
	}
	if err == nil {
		err = o.zfs("rename", f.at, f.freeAside())
	}
	if err != nil {
		return o.undoTurn(err)
	}
	return o.settleAgain(&f, f.at+turnSuffix)
}

// freeAside is a name for what is put aside next.
func (f found) freeAside() string {
	n := 1
	for f.besideAt(f.at+asideInfix+strconv.Itoa(n)) != nil {
		n++
	}
	return f.at + asideInfix + strconv.Itoa(n)
}

// prepareTurn makes the clone, and the owner of every snapshot up to the one that it was made from.
func (o *op) prepareTurn(f found, r row) error {
	for _, one := range f.newer(r) {
		if one["cairn:snapshot"] == "" && one["defer_destroy"] != "on" {
			return fmt.Errorf("snapshot %s is newer than %s and carries no mark; it would have to be deleted first: %w", one["name"], r["name"], cairn.ErrPrecondition)
		}
	}
	if len(f.below) > 0 {
		return fmt.Errorf("dataset %s is in it, and would have to move: %w", f.below[0], cairn.ErrInUse)
	}
	if f.row["receive_resume_token"] != "" {
		if err := o.zfs("receive", "-A", f.at); err != nil {
			return err
		}
	}
	options, err := o.likeness(f, r)
	if err != nil {
		return err
	}
	if err := o.zfs(slices.Concat([]string{"clone"}, options, []string{r["name"], f.at + turnSuffix})...); err != nil {
		return err
	}
	for {
		f, err := o.lookAt(f.at)
		if err != nil {
			return err
		}
		turned := f.besideAt(f.at + turnSuffix)
		if turned == nil || f.originOf(turned) == nil {
			return nil
		}
		if err := o.zfs("promote", turned["name"]); err != nil {
			return err
		}
	}
}

// carried are the properties of OpenZFS that somebody may have set on a replica, and that its successor is given.
var carried = []string{
	"acltype", "atime", "checksum", "compression", "copies", "dedup", "devices", "dnodesize", "exec", "logbias", "primarycache",
	"recordsize", "redundant_metadata", "relatime", "secondarycache", "setuid", "sync", "xattr",
}

// likeness are the options with which a clone of r becomes what the replica is.
func (o *op) likeness(f found, r row) ([]string, error) {
	reserve := int64(-1)
	if percent := f.row["cairn:reserve"]; percent != "" {
		var err error
		if reserve, err = strconv.ParseInt(percent, 10, 64); err != nil {
			return nil, fmt.Errorf("dataset %s: snapshot reserve %q is no number: %w", f.at, percent, cairn.ErrCorrupt)
		}
	}
	set := []string{
		"cairn:id=" + string(o.id), epochProperty(f.epoch), "cairn:state=" + string(stateReady),
		"cairn:reverted=" + r.snapshotName(), "readonly=" + f.row["readonly"],
	}
	for _, column := range []string{"cairn:source", "cairn:adopted", "cairn:key"} {
		if f.row[column] != "" {
			set = append(set, column+"="+f.row[column])
		}
	}
	names := slices.Clone(carried)
	for name := range o.options {
		names = append(names, name)
	}
	slices.Sort(names)
	out, err := o.query("zfs", "get", "-Hp", "-s", "local", "-o", "property,value", strings.Join(slices.Compact(names), ","), f.at)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		set = append(set, name+"="+value)
	}
	return append(limits(f.size(), f.row["cairn:thick"] != "", reserve), options(set...)...), nil
}

// undoTurn undoes a revert that was refused. It is a courtesy: the next call does the same.
func (o *op) undoTurn(err error) error {
	if o.ctx.Err() != nil || errors.Is(err, cairn.ErrTimeout) || errors.Is(err, cairn.ErrUnknownOutcome) {
		return err
	}
	f, lookErr := o.look()
	if lookErr == nil {
		lookErr = o.settle(&f)
	}
	if lookErr != nil {
		return fmt.Errorf("%w (and was not undone: %v)", err, lookErr)
	}
	return err
}

// settle finishes a revert past newer snapshots if the replica's name is free for its result, and else undoes it; then it tidies
// up beside the replica.
func (o *op) settle(f *found) error {
	home := o.at(o.id)
	if f.at == home+turnSuffix {
		if err := o.zfs("rename", f.at, home); err != nil {
			return err
		}
		return o.settleAgain(f, home)
	}
	if turned := f.besideAt(home + turnSuffix); turned != nil {
		if owed := f.owed(turned); owed != nil {
			if err := o.zfs("promote", owed["name"]); err != nil {
				return err
			}
		} else if err := o.zfs("destroy", turned["name"]); err != nil {
			return err
		}
		return o.settleAgain(f, home)
	}
	if f.at == home && state(f.row["cairn:state"]) == stateAside {
		if err := o.zfs("set", "cairn:state="+string(stateReady), home); err != nil {
			return err
		}
		return o.settleAgain(f, home)
	}
	return o.tidy(f)
}

// tidy removes what is beside the replica and keeps no snapshot any more, and the reservations of the rest.
func (o *op) tidy(f *found) error {
	for _, r := range f.beside {
		keeps := slices.ContainsFunc(slices.Concat(f.snapshots, f.doomed), func(s row) bool { return f.dataset(s)["name"] == r["name"] })
		switch {
		case !keeps:
			if err := o.zfs("destroy", r["name"]); err != nil {
				return err
			}
			return o.settleAgain(f, f.at)
		case r["cairn:thick"] != "":
			if err := o.zfs("set", "refreservation=none", r["name"]); err != nil {
				return err
			}
			if err := o.zfs("inherit", "cairn:thick", r["name"]); err != nil {
				return err
			}
		}
	}
	return nil
}

// tidyAll does what a crash has kept a deletion from: the snapshot is gone, and so nobody asks for its deletion again.
func (o *op) tidyAll(rows []row) {
	for id, rows := range o.marked(rows) {
		one := &op{Pool: o.Pool, ctx: o.ctx, id: id}
		f, err := one.read(rows)
		if err == nil && f.at == o.at(id) && f.besideAt(f.at+turnSuffix) == nil {
			err = one.tidy(&f)
		}
		if err != nil {
			o.log.Warn("what a revert has left behind was not tidied up", "replica", id, "err", err)
		}
	}
}

// settleAgain looks anew and goes on.
func (o *op) settleAgain(f *found, at string) error {
	var err error
	if *f, err = o.lookAt(at); err != nil {
		return err
	}
	return o.settle(f)
}

// owed is the dataset that the turned one has to give snapshots back to next: of those whose origin it has, the one with the
// oldest, or the later would take what belongs to the earlier as well.
func (f found) owed(turned row) row {
	var owed []row
	age := make(map[string]int64)
	for _, r := range slices.Concat(f.snapshots, f.doomed) {
		age[r["name"]] = r.number("createtxg")
	}
	for _, r := range append([]row{f.row}, f.beside...) {
		if at, _, ok := strings.Cut(r["origin"], "@"); ok && at == turned["name"] {
			owed = append(owed, r)
		}
	}
	slices.SortFunc(owed, func(a, b row) int { return cmp.Compare(age[a["origin"]], age[b["origin"]]) })
	if len(owed) == 0 {
		return nil
	}
	return owed[0]
}
