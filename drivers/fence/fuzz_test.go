package fence

import (
	"context"
	"net/netip"
	"testing"

	"github.com/cairn-storage/cairn/drivers/tool"
)

// prints is a tool that prints something.
type prints []byte

func (p prints) Run(context.Context, tool.Cmd) (tool.Result, error) {
	return tool.Result{Stdout: p}, nil
}

// FuzzRuleset: whatever nft prints, the same output is always the same shape.
func FuzzRuleset(f *testing.F) {
	f.Add([]byte(`{"nftables":[{"metainfo":{"version":"1"}},{"set":{"name":"open","elem":["x"]}},{"chain":{"name":"input","handle":4}}]}`))
	f.Add([]byte(`{"nftables":[{"set":null},{"a":{},"b":{}}]}`))
	f.Fuzz(func(t *testing.T, out []byte) {
		g := &Gate{Runner: prints(out), Table: "cairn"}
		shape, open, err := g.list(t.Context())
		for range 5 {
			if again, o, e := g.list(t.Context()); again != shape || o != open || (e == nil) != (err == nil) {
				t.Errorf("%q, open: %t (%v), and again %q, open: %t (%v)", shape, open, err, again, o, e)
			}
		}
	})
}

// FuzzAddresses: whatever ip prints, an address is placed only on an interface that was printed.
func FuzzAddresses(f *testing.F) {
	f.Add([]byte(`[{"ifname":"eth0","flags":["UP"],"addr_info":[{"local":"10.0.0.1","prefixlen":24,"valid_life_time":4294967295}]}]`))
	f.Add([]byte(`[{"ifname":"x","addr_info":[{"local":"10.0.0.1","prefixlen":-1},{"local":"","prefixlen":999}]}]`))
	address := netip.MustParsePrefix("10.0.0.9/24")
	f.Fuzz(func(t *testing.T, out []byte) {
		a := &Addresses{Runner: prints(out)}
		name, err := a.place(t.Context(), address)
		links, listErr := a.links(t.Context())
		if err != nil {
			return
		}
		for _, l := range links {
			if l.Name == name {
				return
			}
		}
		t.Errorf("%q of %v (%v)", name, links, listErr)
	})
}
