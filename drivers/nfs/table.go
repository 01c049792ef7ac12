package nfs

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/nfs/record"
)

const header = `# Written by Cairn and read by exportfs. Do not edit: changes are undone. Use "cairn access allow" and "deny".
`

// grant is one line of the kernel's table: a client and what it may do with a path.
type grant struct {
	path, client string
}

// table is who may do what: the options of each grant, sorted.
type table map[grant][]string

// wanted is the table that serves the entries under their names, except those that are moving.
func wanted(served map[string]record.Entry, moving map[string]bool, root string, squash Squash) (table, error) {
	t := make(table)
	for name, entry := range served {
		if moving[name] {
			continue
		}
		clients, err := record.Clients(entry.Spec.Rules, record.ReadOnly(entry.Spec))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, c := range clients {
			t[grant{filepath.Join(root, name), c.String()}] = options(name, c.Level, squashing(entry.Spec.Squash, squash))
		}
	}
	return t, nil
}

// options of one grant, sorted. mountpoint: exported only while something is mounted on it, so that neither a reboot nor a
// failed mount makes the empty directory below a share. no_subtree_check: handles must not depend on a file's name, and
// a file system of its own needs no such check.
func options(name string, level cairn.AccessLevel, squash []string) []string {
	list := []string{"fsid=" + name, "mountpoint", "no_subtree_check", "sec=sys", "sync", string(level)}
	list = append(list, squash...)
	slices.Sort(list)
	return list
}

// squashing is what exports(5) calls a share's squash, or else the node's. Nobody is the default there, and not printed.
func squashing(of cairn.Squash, node Squash) []string {
	var list []string
	switch of.Mode {
	case "":
		return node.options()
	case cairn.SquashNone:
		return SquashNone.options()
	case cairn.SquashRoot:
		list = SquashRoot.options()
	default:
		list = SquashAll.options()
	}
	for _, who := range []struct {
		option string
		id     uint32
	}{{anonUID, of.UID}, {anonGID, of.GID}} {
		if who.id != cairn.Nobody {
			list = append(list, fmt.Sprintf("%s%d", who.option, who.id))
		}
	}
	return list
}

const anonUID, anonGID = "anonuid=", "anongid="

func (s Squash) options() []string {
	if s == SquashAll {
		return []string{"root_squash", "all_squash"}
	}
	return []string{string(s), "no_all_squash"}
}

// render is the whole exports file.
func render(r *record.Record, t table) []byte {
	var out bytes.Buffer
	out.WriteString(header)
	out.Write(r.Lines())
	last := ""
	for _, g := range slices.SortedFunc(maps.Keys(t), compareGrants) {
		if g.path != last {
			if last != "" {
				out.WriteByte('\n')
			}
			out.WriteString(g.path)
			last = g.path
		}
		fmt.Fprintf(&out, " %s(%s)", g.client, strings.Join(t[g], ","))
	}
	if last != "" {
		out.WriteByte('\n')
	}
	return out.Bytes()
}

func compareGrants(a, b grant) int {
	if c := strings.Compare(a.path, b.path); c != 0 {
		return c
	}
	return strings.Compare(a.client, b.client)
}

// parse reads what "exportfs -s" prints, and keeps what is below root: all of that is ours.
func parse(output []byte, root string) (table, error) {
	t := make(table)
	for _, row := range strings.Split(strings.TrimSpace(string(output)), "\n") {
		fields := strings.Fields(row)
		if len(fields) == 0 || !strings.HasPrefix(fields[0], root+"/") {
			continue
		}
		client, opts, ok := strings.Cut(fields[len(fields)-1], "(")
		if len(fields) != 2 || !ok || !strings.HasSuffix(opts, ")") {
			return nil, fmt.Errorf("exportfs: not understood: %q", row)
		}
		list := strings.Split(strings.TrimSuffix(opts, ")"), ",")
		slices.Sort(list)
		t[grant{fields[0], client}] = list
	}
	return t, nil
}

// holds reports whether the kernel's table has the grant with all these options, and makes nobody somebody else.
func (t table) holds(g grant, options []string) bool {
	have, ok := t[g]
	return ok && !slices.ContainsFunc(options, func(o string) bool { return !slices.Contains(have, o) }) &&
		!slices.ContainsFunc(have, func(o string) bool { return isAnonymous(o) && !slices.Contains(options, o) })
}

// isAnonymous: the option says who those become who are squashed. Without it they are Nobody.
func isAnonymous(option string) bool {
	id, ok := strings.CutPrefix(option, anonUID)
	if !ok {
		id, ok = strings.CutPrefix(option, anonGID)
	}
	return ok && id != strconv.FormatUint(uint64(cairn.Nobody), 10)
}

// change is a run of exportfs for several grants.
type change struct {
	options string // "" takes the grants away
	grants  []grant
}

// maxGrants bounds the length of a command line.
const maxGrants = 200

// changes lead from the table that is to the one that is wanted. What is granted comes first: a client whose rule is only
// rewritten is never without one.
func changes(have, want table) []change {
	groups := make(map[string][]grant)
	for g, opts := range want {
		if !have.holds(g, opts) {
			key := strings.Join(opts, ",")
			groups[key] = append(groups[key], g)
		}
	}
	var list []change
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		list = appendChanges(list, key, groups[key])
	}
	var gone []grant
	for g := range have {
		if _, ok := want[g]; !ok {
			gone = append(gone, g)
		}
	}
	return appendChanges(list, "", gone)
}

func appendChanges(list []change, options string, grants []grant) []change {
	slices.SortFunc(grants, compareGrants)
	for chunk := range slices.Chunk(grants, maxGrants) {
		list = append(list, change{options, chunk})
	}
	return list
}

// args of exportfs. -i: the files of other people are not read, so nothing of theirs changes.
func (c change) args() []string {
	args := []string{"-u"}
	if c.options != "" {
		args = []string{"-i", "-o", c.options}
	}
	for _, g := range c.grants {
		args = append(args, argument(g))
	}
	return args
}

// argument is client:path, with an IPv6 client in brackets.
func argument(g grant) string {
	client := g.client
	if addr, length, network := strings.Cut(client, "/"); strings.Contains(client, ":") {
		client = "[" + addr + "]"
		if network {
			client += "/" + length
		}
	}
	return client + ":" + g.path
}
