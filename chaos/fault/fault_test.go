package fault

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/disk"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/chaos/network"
)

// TestChoose: what cannot be done is said with the reason, and never chosen; a name that is none is an error.
func TestChoose(t *testing.T) {
	servers, failing := &local.Cluster{}, &Disks{logs: map[string]*disk.Disk{"n1": nil}, pools: map[string]*disk.Disk{"n1": nil}}
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
		{"pools that cannot fail", &World{Cluster: servers, Disks: &Disks{}}, []string{"full-pool", "pool-error"}, "full-pool", "pool-error: needs a file system in user space"},
		{"pools on directories", &World{Cluster: servers, Disks: failing}, []string{"pool-hang", "pool-error"}, "pool-hang,pool-error", ""},
		{"pools on btrfs", &World{Cluster: prepared(t, local.Config{Clients: netip.MustParseAddr("10.78.0.0")}), Disks: failing}, []string{"pool-hang", "pool-error"}, "pool-hang", "pool-error: needs pools on directories"},
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

// prepared is a cluster of one server, which is not started.
func prepared(t *testing.T, cfg local.Config) *local.Cluster {
	t.Helper()
	cfg.Dir, cfg.Executable = t.TempDir(), "/bin/true"
	c, err := local.New(cfg)
	if err == nil {
		_, err = c.Prepare()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPools: each fault of a pool's disk is met by who changes the pool, not by the disk of the raft log nor by who looks at what is in the pool,
// and it is over when it is healed. Of a disk that was taken away nothing is left.
func TestPools(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts file systems: run as root")
	}
	w := &World{Cluster: prepared(t, local.Config{})}
	s := w.Cluster.Server("n1")
	var err error
	if w.Disks, err = Mount(t.Context(), w.Cluster.Servers()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Disks.Heal()
		if err := w.Disks.Close(); err != nil {
			t.Error(err)
		}
	})
	if len(w.Disks.pools) == 0 {
		t.Skip("no FUSE here")
	}
	for _, c := range []struct {
		fault string
		meets func(took time.Duration, err error) bool // nil: the change does not end while the fault lasts
	}{
		{"pool-slow", func(took time.Duration, err error) bool { return err == nil && took >= 5*time.Millisecond }},
		{"pool-error", func(_ time.Duration, err error) bool { return errors.Is(err, syscall.EIO) }},
		{"pool-hang", nil},
	} {
		row := Table()[slices.IndexFunc(Table(), func(f Fault) bool { return f.Name == c.fault })]
		heal, err := row.Inject(t.Context(), w, s, rand.New(rand.NewPCG(1, 1)))
		if err != nil {
			t.Fatal(err)
		}
		began, changed := time.Now(), make(chan error, 1)
		go func() { changed <- os.Mkdir(filepath.Join(s.PoolDir(), c.fault), 0o700) }()
		if c.meets != nil {
			if err := <-changed; !c.meets(time.Since(began), err) {
				t.Errorf("%s: a change took %s (%v)", c.fault, time.Since(began), err)
			}
		}
		if err := os.WriteFile(filepath.Join(s.Disk(), c.fault), nil, 0o600); err != nil {
			t.Errorf("%s: the disk of the raft log: %v", c.fault, err)
		}
		if _, err := s.Everything(); err != nil {
			t.Errorf("%s: a look at the pool: %v", c.fault, err)
		}
		if c.meets == nil {
			select {
			case err := <-changed:
				t.Errorf("%s: a change has ended: %v", c.fault, err)
				changed <- nil
			case <-time.After(20 * time.Millisecond):
			}
		}
		if err := heal(t.Context()); err != nil {
			t.Errorf("%s is not over: %v", c.fault, err)
		}
		if c.meets == nil {
			if err := <-changed; err != nil {
				t.Errorf("%s: after it was healed: %v", c.fault, err)
			}
		}
	}
	if err := w.Disks.mountPool(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Everything(); err != nil || len(all) > 0 {
		t.Errorf("a new disk holds %v (%v)", all, err)
	}
}
