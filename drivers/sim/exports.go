package sim

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Exports is exportfs with the table of a kernel NFS server, without its files: what it can be asked is -s, -f, -u and -i
// with -o. The order of what -s lists is not that of the real one. It is safe for concurrent use.
type Exports struct {
	mu    sync.Mutex
	table []export
}

var _ tool.Runner = (*Exports)(nil)

// export is one line of the table.
type export struct {
	path, client string
	options      string
}

// NewExports returns a server that exports nothing.
func NewExports() *Exports { return &Exports{} }

// Run implements tool.Runner.
func (x *Exports) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	if err := ctx.Err(); err != nil {
		return tool.Result{}, ended(c, "not started", err, cairn.ErrUnavailable)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	run := &call{cmd: c}
	var err error
	switch {
	case slices.Equal(c.Args, []string{"-s"}):
		for _, e := range x.table {
			fmt.Fprintf(&run.stdout, "%s  %s(%s)\n", e.path, e.client, e.options)
		}
	case slices.Equal(c.Args, []string{"-f"}): // nothing is cached here
	case len(c.Args) > 1 && c.Args[0] == "-u":
		err = x.remove(run, c.Args[1:])
	case len(c.Args) > 3 && c.Args[0] == "-i" && c.Args[1] == "-o":
		err = x.add(run, c.Args[2], c.Args[3:])
	default:
		err = unknown("%s", c)
	}
	if err != nil {
		return tool.Result{}, err
	}
	return run.answer(nil)
}

func (x *Exports) add(c *call, options string, grants []string) error {
	shown, err := showOptions(c, options)
	if err != nil || c.code != 0 {
		return err
	}
	for _, grant := range grants {
		client, path, ok := strings.Cut(grant, ":/")
		if !ok {
			client, _, _ = strings.Cut(grant, ":")
			c.warn("exportfs: Invalid export syntax: %s", client)
			continue
		}
		path = "/" + path
		if strings.HasSuffix(client, ".invalid") { // a name that nobody can have
			fmt.Fprintf(&c.stderr, "exportfs: Failed to resolve %s\n", client)
			continue
		}
		if client, err = address(client); err != nil {
			return err
		}
		if _, err := os.Stat(path); err != nil {
			c.warn("exportfs: Failed to stat %s: No such file or directory", path)
		}
		x.table = slices.DeleteFunc(x.table, func(e export) bool { return e.path == path && e.client == client })
		x.table = append(x.table, export{path, client, shown})
	}
	return nil
}

func (x *Exports) remove(c *call, grants []string) error {
	for _, grant := range grants {
		client, path, ok := strings.Cut(grant, ":/")
		if !ok {
			return unknown("exportfs -u %s", grant)
		}
		client, err := address(client)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(x.table, func(e export) bool { return e.path == "/"+path && e.client == client })
		if at < 0 {
			c.warn("exportfs: Could not find '%s' to unexport.", grant)
			continue
		}
		x.table = slices.Delete(x.table, at, at+1)
	}
	return nil
}

// address is how a client is listed: an IPv6 address has no brackets there.
func address(client string) (string, error) {
	host, bits, network := strings.Cut(client, "/")
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(host)
	if network {
		_, err = netip.ParsePrefix(host + "/" + bits)
		host += "/" + bits
	}
	if err != nil {
		return "", unknown("the client %q", client)
	}
	return host, nil
}

// otherOptions are those of exports(5) that are not simulated.
var otherOptions = []string{
	"secure", "insecure", "wdelay", "no_wdelay", "hide", "nohide", "crossmnt", "nocrossmnt", "subtree_check", "mp", "refer", "replicas",
	"secure_locks", "insecure_locks", "auth_nlm", "no_auth_nlm", "pnfs", "no_pnfs", "security_label", "nordirplus", "acl", "no_acl",
}

// showOptions puts options in the order in which -s lists them, with those that nobody gave.
func showOptions(c *call, options string) (string, error) {
	chosen := map[string]string{"sync": "sync", "rw": "ro", "squash": "root_squash", "all": "no_all_squash"}
	var fsid, more string
	for option := range strings.SplitSeq(options, ",") {
		name, _, _ := strings.Cut(option, "=")
		switch name {
		case "sync", "async":
			chosen["sync"] = option
		case "rw", "ro":
			chosen["rw"] = option
		case "root_squash", "no_root_squash":
			chosen["squash"] = option
		case "all_squash", "no_all_squash":
			chosen["all"] = option
		case "fsid":
			fsid = "," + option
		case "mountpoint", "anonuid", "anongid":
			more += "," + option
		case "no_subtree_check", "sec":
			if name == "sec" && option != "sec=sys" {
				return "", unknown("the export option %s", option)
			}
		default:
			if slices.Contains(otherOptions, name) {
				return "", unknown("the export option %s", option)
			}
			c.warn("exportfs: command line:0: unknown keyword \"%s\"\n", option)
			return "", nil
		}
	}
	if strings.Contains(more, "mountpoint,") || strings.Contains(more, ",mountpoint") && len(more) > len(",mountpoint") {
		return "", unknown("the export options %s together", more[1:])
	}
	return fmt.Sprintf("%s,wdelay,hide,no_subtree_check%s%s,sec=sys,%s,secure,%s,%s",
		chosen["sync"], fsid, more, chosen["rw"], chosen["squash"], chosen["all"]), nil
}
