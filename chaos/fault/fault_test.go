package fault

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/chaos/network"
)

// TestChoose: what cannot be done is said with the reason, and never chosen; a name that is none is an error.
func TestChoose(t *testing.T) {
	servers := &local.Cluster{}
	for _, test := range []struct {
		name   string
		world  *World
		names  []string
		chosen string
		cannot string
	}{
		{"somebody else's cluster", &World{}, []string{"transfer", "kill"}, "transfer", "kill: needs server processes of its own"},
		{"without root", &World{Cluster: servers}, []string{"kill", "partition", "hang"}, "kill", "partition: needs network namespaces"},
		{"without a device", &World{Cluster: servers, Network: &network.Network{NoLatency: fs.ErrNotExist}}, []string{"loss", "latency"}, "loss", "latency: needs network namespaces and /dev/net/tun"},
		{"without NFS", &World{Cluster: servers}, []string{"kill", "nfs-kill"}, "kill", "nfs-kill: needs servers of its own that serve NFS"},
		{"without tools that fail", &World{Cluster: servers}, []string{"kill", "tool-hang"}, "kill", "tool-hang: needs servers of its own that serve NFS, timeout and setpriv"},
		{"tools that fail", &World{Cluster: servers, Tools: []string{"btrfs"}}, []string{"tool-hang", "tool-fail", "tool-die"}, "tool-hang,tool-fail,tool-die", ""},
		{"one clock", &World{Cluster: servers}, []string{"clock"}, "", "clock: needs time namespaces"},
		{"a clock each", &World{Cluster: servers, Clocks: true}, []string{"clock"}, "clock", ""},
		{"three nodes", &World{Cluster: servers}, []string{"rejoin"}, "", "rejoin: needs a node to spare"},
		{"a node to spare", &World{Cluster: servers, Guest: "n4"}, []string{"rejoin"}, "rejoin", ""},
		{"disks that cannot fail", &World{Cluster: servers, Disks: &Disks{}}, []string{"full-log", "hang"}, "full-log", "hang: needs a file system in user space"},
	} {
		t.Run(test.name, func(t *testing.T) {
			chosen, cannot, err := test.world.Choose(test.names)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, f := range chosen {
				names = append(names, f.Name)
			}
			if got := strings.Join(names, ","); got != test.chosen {
				t.Errorf("chosen: %s, want %s", got, test.chosen)
			}
			if got := strings.Join(cannot, "; "); !strings.HasPrefix(got, test.cannot) || (got == "") != (test.cannot == "") {
				t.Errorf("cannot: %s, want %s", got, test.cannot)
			}
		})
	}
	if _, _, err := (&World{}).Choose([]string{"earthquake"}); err == nil || !strings.Contains(err.Error(), "earthquake") {
		t.Errorf("a fault that is none: %v", err)
	}
}
