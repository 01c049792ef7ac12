package placement

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-storage/cairn"
)

const gib = int64(1) << 30

// pool makes a candidate that takes anything up to 100 GiB, changed by the edits of a test case.
func pool(nodeName, poolName string, edits ...func(*Candidate)) Candidate {
	id := cairn.NodeID("id-" + nodeName)
	c := Candidate{
		Pool: &cairn.Pool{
			ID: cairn.MakePoolID(id, poolName), Node: id, Name: poolName, Driver: "dir", Total: 100 * gib, OverSubscriptionPercent: 100,
			Capabilities: []cairn.Capability{cairn.CapClone, cairn.CapResize, cairn.CapRevert, cairn.CapSnapshot},
			Protocols:    []cairn.Protocol{cairn.ProtocolWebDAV},
		},
		Node: &cairn.Node{ID: id, Name: nodeName, State: cairn.NodeUp},
		Free: -1,
	}
	for _, edit := range edits {
		edit(&c)
	}
	return c
}

func request(edits ...func(*Request)) Request {
	r := Request{Size: 10 * gib, Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: &cairn.ShareType{Name: "default", Format: cairn.FormatFiles}}
	for _, edit := range edits {
		edit(&r)
	}
	return r
}

func TestFilters(t *testing.T) {
	fullType := func(r *Request) {
		r.Type = &cairn.ShareType{Name: "full", Format: cairn.FormatFiles, Snapshots: true, Clone: true, Revert: true}
	}
	overNFS := func(r *Request) {
		r.Protocol, r.Type = cairn.ProtocolNFS, &cairn.ShareType{Name: "copies", Format: cairn.FormatFiles, Replication: cairn.ReplicationDR}
	}
	nfs := func(capabilities ...cairn.Capability) func(*Candidate) {
		return func(c *Candidate) {
			c.Pool.Protocols, c.Pool.Capabilities = []cairn.Protocol{cairn.ProtocolNFS, cairn.ProtocolWebDAV}, capabilities
		}
	}
	for _, tc := range []struct {
		name   string
		req    Request
		pool   Candidate
		filter string
		reason string
	}{
		{"fits", request(), pool("n1", "data"), "", ""},
		{"fits exactly", request(func(r *Request) { r.Size = 100 * gib }), pool("n1", "data"), "", ""},
		{"one byte too many", request(func(r *Request) { r.Size = 100*gib + 1 }), pool("n1", "data"), "capacity", "100GiB of 100GiB left"},
		{"promised to others", request(), pool("n1", "data", func(c *Candidate) { c.Provisioned = 97 * gib }), "capacity", "3GiB of 100GiB left"},
		{"promised more than there is", request(), pool("n1", "data", func(c *Candidate) { c.Provisioned = 200 * gib }), "capacity", "0B of 100GiB left"},
		{"reserved", request(func(r *Request) { r.Size = 9000 * gib }), pool("n1", "data", func(c *Candidate) { c.Pool.Total, c.Pool.ReservedPercent = 10000*gib, 20 }), "capacity", "7.81TiB of 7.81TiB left"},
		{"over-subscribed", request(func(r *Request) { r.Size = 150 * gib }), pool("n1", "data", func(c *Candidate) { c.Pool.OverSubscriptionPercent = 200 }), "", ""},
		{"thin: larger than what is free", request(), pool("n1", "data", func(c *Candidate) { c.Free = gib }), "", ""},
		{"disk full", request(), pool("n1", "data", func(c *Candidate) { c.Free = 0 }), "free space", "0B free on disk, 0B reserved"},
		{"into the reserve", request(), pool("n1", "data", func(c *Candidate) { c.Free = 5 * gib; c.Pool.ReservedPercent = 10 }), "free space", "5GiB free on disk, 10GiB reserved"},
		{"node down", request(), pool("n1", "data", func(c *Candidate) { c.Node.State = cairn.NodeDown }), "node", "is down"},
		{"node without a row", request(), pool("n1", "data", func(c *Candidate) { c.Node = nil }), "node", "is not a member of the cluster"},
		{"draining", request(), pool("n1", "data", func(c *Candidate) { c.Node.Draining = true }), "draining", "the node is draining"},
		{"frozen", request(), pool("n1", "data", func(c *Candidate) { c.Pool.Frozen = true }), "frozen", "takes no new replicas until it is thawed"},
		{"pool fault", request(), pool("n1", "data", func(c *Candidate) { c.Pool.Fault = cairn.Fault{Code: cairn.FaultPool, Message: "does not answer"} }), "fault", "pool: does not answer"},
		{"other driver", request(func(r *Request) { r.Type.Driver = "zfs" }), pool("n1", "data"), "driver", "is dir, type default wants zfs"},
		{"other protocol", request(func(r *Request) { r.Protocol = cairn.ProtocolNFS }), pool("n1", "data"), "protocol", "serves webdav, not nfs"},
		{"replicas over NFS", request(overNFS), pool("n1", "data", nfs(cairn.CapReplicate)), "protocol",
			"dir cannot cut snapshots while clients of nfs write, so replicas could not follow; use webdav, or another driver"},
		{"replicas over NFS, cut while clients write", request(overNFS), pool("n1", "data", nfs(cairn.CapLiveSnapshot, cairn.CapReplicate)), "", ""},
		{"no replicas over NFS", request(overNFS, func(r *Request) { r.Type.Replication = "" }), pool("n1", "data", nfs()), "", ""},
		{"replicas over WebDAV", request(overNFS, func(r *Request) { r.Protocol = cairn.ProtocolWebDAV }), pool("n1", "data", nfs(cairn.CapReplicate)), "", ""},
		{"no gate", request(overNFS, func(r *Request) { r.Type.Failover = cairn.FailoverAuto }), pool("n1", "data", nfs(cairn.CapLiveSnapshot, cairn.CapReplicate)), "protocol",
			"its node cannot fence its NFS server, which failover = auto needs; the pool's notes say why"},
		{"no protocol", request(), pool("n1", "data", func(c *Candidate) { c.Pool.Protocols = nil }), "protocol", "serves no protocol, not webdav"},
		{"type of the other format", request(func(r *Request) { r.Type.Format = cairn.FormatBlock }), pool("n1", "data"), "protocol", "type default is for block, not for files"},
		{"type's capabilities", request(fullType), pool("n1", "data"), "", ""},
		{"capability of the type", request(fullType), pool("n1", "data", func(c *Candidate) { c.Pool.Capabilities = []cairn.Capability{cairn.CapSnapshot} }), "capability", "driver dir cannot clone, revert"},
		{"capability of the request", request(func(r *Request) { r.Needs = []cairn.Capability{cairn.CapAdopt} }), pool("n1", "data"), "capability", "driver dir cannot adopt"},
		{"right zone", request(func(r *Request) { r.Zone = "east" }), pool("n1", "data", func(c *Candidate) { c.Node.Zone = "east" }), "", ""},
		{"other zone", request(func(r *Request) { r.Zone = "east" }), pool("n1", "data", func(c *Candidate) { c.Node.Zone = "west" }), "zone", "is in zone west, not in east"},
		{"no zone", request(func(r *Request) { r.Zone = "east" }), pool("n1", "data"), "zone", "is in no zone, not in east"},
		{"pinned here", request(func(r *Request) { r.Pool = "id-n1/data" }), pool("n1", "data"), "", ""},
		{"pinned elsewhere", request(func(r *Request) { r.Pool = "id-n2/fast" }), pool("n1", "data"), "pinned", "only pool fast of the requested node may take it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			chosen, verdicts, err := Place(tc.req, []Candidate{tc.pool})
			v := verdicts[0]
			if v.Filter != tc.filter || v.Reason != tc.reason || v.Accepted != (tc.filter == "") {
				t.Errorf("filter %q, reason %q, accepted %v; want %q, %q", v.Filter, v.Reason, v.Accepted, tc.filter, tc.reason)
			}
			if (chosen != nil) != v.Accepted || (err == nil) != v.Accepted {
				t.Errorf("chosen %v, error %v", chosen, err)
			}
		})
	}
}

func TestRefusalNamesEveryPool(t *testing.T) {
	_, _, err := Place(request(), []Candidate{
		pool("n2", "data", func(c *Candidate) { c.Pool.Frozen = true }),
		pool("n1", "fast", func(c *Candidate) { c.Pool.Driver, c.Pool.Protocols = "zfs", nil }),
		pool("n1", "data", func(c *Candidate) { c.Provisioned = 97 * gib }),
	})
	want := "no pool can take share of 10GiB: n1/data: capacity: 3GiB of 100GiB left; n1/fast: protocol: serves no protocol, not webdav; " +
		"n2/data: frozen: takes no new replicas until it is thawed: no capacity"
	if err == nil || !strings.HasPrefix(err.Error(), "no pool can take share of 10GiB: n1/data: capacity: ") || !errors.Is(err, cairn.ErrCapacity) {
		t.Fatalf("error %v", err)
	}
	if err.Error() != want {
		t.Errorf("error\n%s\nwant\n%s", err, want)
	}
	_, _, err = Place(request(func(r *Request) { r.Protocol = cairn.ProtocolNFS }), []Candidate{pool("n1", "data")})
	if !errors.Is(err, cairn.ErrNotSupported) {
		t.Errorf("error %v, want not supported: no space in the world makes a pool serve nfs", err)
	}
	_, _, err = Place(request(), nil)
	if !errors.Is(err, cairn.ErrCapacity) || !strings.Contains(err.Error(), "the cluster has no pools") {
		t.Errorf("error %v, want that there are no pools", err)
	}
}

func TestWeighers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		pools []Candidate
		want  string
	}{
		{"more left", []Candidate{pool("n1", "a", func(c *Candidate) { c.Provisioned = 50 * gib }), pool("n2", "b")}, "id-n2/b"},
		{"fewer leaders among equals", []Candidate{pool("n1", "a", func(c *Candidate) { c.Leaders = 9 }), pool("n2", "b", func(c *Candidate) { c.Leaders = 8 })}, "id-n2/b"},
		{"space before leaders", []Candidate{pool("n1", "a", func(c *Candidate) { c.Leaders = 9 }), pool("n2", "b", func(c *Candidate) { c.Provisioned, c.Leaders = 80*gib, 5 })}, "id-n1/a"},
		{"lowest ID among equals", []Candidate{pool("n2", "b"), pool("n1", "z"), pool("n1", "c")}, "id-n1/c"},
		{"the best is rejected", []Candidate{pool("n1", "a", func(c *Candidate) { c.Pool.Frozen = true }), pool("n2", "b", func(c *Candidate) { c.Provisioned = 90 * gib })}, "id-n2/b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			chosen, verdicts, err := Place(request(), tc.pools)
			if err != nil || string(chosen.ID) != tc.want {
				t.Fatalf("chosen %v, error %v, want %s; verdicts %+v", chosen, err, tc.want, verdicts)
			}
		})
	}
}

func TestPlaceProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		req := request(func(r *Request) { r.Size = rapid.Int64Range(1, 200).Draw(t, "size") * gib })
		candidates := make([]Candidate, rapid.IntRange(0, 8).Draw(t, "pools"))
		for i := range candidates {
			candidates[i] = pool(fmt.Sprint("n", rapid.IntRange(1, 3).Draw(t, "node")), fmt.Sprint("p", i), func(c *Candidate) {
				c.Pool.Total = rapid.Int64Range(0, 300).Draw(t, "total") * gib
				c.Pool.Frozen = rapid.Bool().Draw(t, "frozen")
				c.Provisioned = rapid.Int64Range(0, 300).Draw(t, "provisioned") * gib
				c.Free = rapid.Int64Range(-1, 300*gib).Draw(t, "free")
				c.Leaders = rapid.IntRange(0, 50).Draw(t, "leaders")
			})
		}
		chosen, verdicts, err := Place(req, candidates)
		if len(verdicts) != len(candidates) {
			t.Fatalf("%d verdicts for %d pools", len(verdicts), len(candidates))
		}
		best := slices.MaxFunc(append(verdicts, Verdict{Score: -1}), func(a, b Verdict) int {
			switch {
			case a.Accepted != b.Accepted && a.Accepted, a.Accepted && b.Accepted && a.Score > b.Score:
				return 1
			case a.Accepted != b.Accepted || a.Accepted && a.Score < b.Score:
				return -1
			}
			return 0
		})
		if (chosen == nil) != (err != nil) || (chosen == nil) == best.Accepted {
			t.Fatalf("chosen %v, error %v, verdicts %+v", chosen, err, verdicts)
		}
		if chosen != nil {
			i := slices.IndexFunc(verdicts, func(v Verdict) bool { return v.Pool == chosen.ID })
			if !verdicts[i].Accepted || verdicts[i].Score < best.Score {
				t.Fatalf("chose %+v, best is %+v", verdicts[i], best)
			}
		}
		shuffled := rapid.Permutation(candidates).Draw(t, "order")
		again, verdictsAgain, _ := Place(req, shuffled)
		if again != chosen || fmt.Sprint(verdicts) != fmt.Sprint(verdictsAgain) {
			t.Fatalf("the order of the candidates changed the answer: %v, then %v", chosen, again)
		}
	})
}
