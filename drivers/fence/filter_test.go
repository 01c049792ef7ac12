package fence

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// filter is as much of the kernel's packet filter as the gate uses, behind tool.Runner, on the clock of the test. TestVerify
// holds it to what the real one answers.
type filter struct {
	mu     sync.Mutex
	tables map[string]map[string]map[string]time.Time // table, set, element: until when; zero is for good
	// before is called before each script, outside of the lock: the process may be stopped there.
	before func(script string)
	addrs  map[string]time.Time // of ip address
}

func newFilter() *filter {
	return &filter{tables: map[string]map[string]map[string]time.Time{}, before: func(string) {}, addrs: map[string]time.Time{}}
}

func (f *filter) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	if err := ctx.Err(); err != nil {
		return tool.Result{}, err
	}
	f.before(string(c.Stdin) + strings.Join(c.Args, " "))
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case c.Name == "ip":
		return f.ip(c)
	case len(c.Stdin) == 0:
		return f.list(c)
	case slices.Contains(c.Args, "-c"):
		return tool.Result{}, nil
	}
	before := clone(f.tables)
	if err := f.script(c); err != nil {
		f.tables = before
		return tool.Result{}, err
	}
	return tool.Result{}, nil
}

func clone(tables map[string]map[string]map[string]time.Time) map[string]map[string]map[string]time.Time {
	copied := map[string]map[string]map[string]time.Time{}
	for table, sets := range tables {
		copied[table] = map[string]map[string]time.Time{}
		for set, elements := range sets {
			copied[table][set] = map[string]time.Time{}
			for element, until := range elements {
				copied[table][set][element] = until
			}
		}
	}
	return copied
}

func (f *filter) script(c tool.Cmd) error {
	for number, line := range strings.Split(string(c.Stdin), "\n") {
		words := strings.Fields(strings.NewReplacer("{", " ", "}", " ").Replace(line))
		if len(words) < 2 {
			continue
		}
		missing := func(column int, what string) error {
			return tool.NewExitError(c, 1, nil, fmt.Appendf(nil, "/dev/stdin:%d:%d: Error: No such file or directory\n%s\n%s", number+1, column, line, what))
		}
		switch words[0] + " " + words[1] {
		case "add table":
			if f.tables[words[3]] == nil {
				f.tables[words[3]] = map[string]map[string]time.Time{}
			}
		case "delete table":
			delete(f.tables, words[3])
		case "table inet":
			f.tables[words[2]] = map[string]map[string]time.Time{"open": {}, "ticket": {}}
			if _, element, open := strings.Cut(string(c.Stdin), "elements = { "); open {
				port, _, _ := strings.Cut(element, " ")
				f.tables[words[2]]["open"][port] = time.Time{}
			}
		case "flush set":
			if f.tables[words[3]] == nil {
				return missing(1, "")
			}
			clear(f.tables[words[3]][words[4]])
		case "delete element":
			set := f.tables[words[3]][words[4]]
			if until, ok := set[words[5]]; !ok || !until.IsZero() && !time.Now().Before(until) {
				return missing(1, "")
			}
			delete(set, words[5])
		case "add element":
			set := f.tables[words[3]][words[4]]
			if set == nil {
				return missing(1, "")
			}
			timeout, err := time.ParseDuration(words[7])
			if err != nil {
				return err
			}
			if until, ok := set[words[5]]; !ok || !until.IsZero() && !time.Now().Before(until) {
				set[words[5]] = time.Now().Add(timeout)
			}
		}
	}
	return nil
}

func (f *filter) list(c tool.Cmd) (tool.Result, error) {
	name := c.Args[len(c.Args)-1]
	sets, ok := f.tables[name]
	if !ok {
		return tool.Result{}, tool.NewExitError(c, 1, nil, []byte("Error: No such file or directory\n"))
	}
	elements := ""
	if f.alive(sets["open"], "2049") {
		elements = `, "elem": [2049]`
	}
	return tool.Result{Stdout: fmt.Appendf(nil, `{"nftables": [{"metainfo": {"version": "1"}}, {"table": {"name": %q, "handle": 7}}, {"set": {"name": "open"%s}}]}`, name, elements)}, nil
}

func (f *filter) alive(set map[string]time.Time, element string) bool {
	until, ok := set[element]
	return ok && (until.IsZero() || time.Now().Before(until))
}

// passes reports whether clients are let through now.
func (f *filter) passes() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	sets, ok := f.tables["cairn_nfs"]
	return !ok || f.alive(sets["open"], "2049")
}

func (f *filter) ip(c tool.Cmd) (tool.Result, error) {
	switch c.Args[1] {
	case "replace":
		life, err := time.ParseDuration(c.Args[6] + "s")
		f.addrs[c.Args[2]] = time.Now().Add(life)
		return tool.Result{}, err
	case "delete":
		delete(f.addrs, c.Args[2])
		return tool.Result{}, nil
	}
	text := `[{"ifname": "eth0", "addr_info": [{"local": "10.0.0.1", "prefixlen": 24, "valid_life_time": 4294967295}`
	for address, until := range f.addrs {
		if left := time.Until(until); left > 0 {
			host, length, _ := strings.Cut(address, "/")
			text += fmt.Sprintf(`, {"local": %q, "prefixlen": %s, "valid_life_time": %d}`, host, length, int(left.Seconds()))
		}
	}
	return tool.Result{Stdout: []byte(text + "]}]")}, nil
}

func (f *filter) has(address string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.addrs[address])
}

// noTools is a machine on which nothing is installed.
type noTools struct{}

func (noTools) Run(_ context.Context, c tool.Cmd) (tool.Result, error) {
	return tool.Result{}, fmt.Errorf("%s: not started: is not installed: %w", c, cairn.ErrNotSupported)
}

// breaking is a filter whose tools fail until it is mended.
type breaking struct {
	*filter
	mu  sync.Mutex
	err error
}

func (b *breaking) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	b.mu.Lock()
	err := b.err
	b.mu.Unlock()
	if err != nil {
		return tool.Result{}, err
	}
	return b.filter.Run(ctx, c)
}

func (b *breaking) mend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = nil
}
