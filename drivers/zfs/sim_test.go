package zfs_test

import (
	"maps"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn/drivers/drivertest"
	"github.com/cairn-storage/cairn/drivers/sim"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// shapes are those of all commands that were recorded: of the driver's life, and what the simulator is held to.
func shapes(t *testing.T) transcript.Shapes {
	all := transcript.ReadShapes(t, "testdata/*.txt")
	maps.Copy(all, transcript.ReadShapes(t, "../sim/testdata/z*.txt"))
	return all
}

// simulated is a machine whose tools are those of package sim.
func simulated(t *testing.T) (machine, *sim.ZFS) {
	m, z, remove := simulate(t, shapes(t))
	t.Cleanup(remove)
	return m, z
}

// simulate makes a machine in memory if this one lets us, since what is durable is not what a simulator can tell.
func simulate(t *testing.T, recorded transcript.Shapes) (m machine, z *sim.ZFS, remove func()) {
	base := ""
	if shared := "/dev/shm"; unix.Access(shared, unix.W_OK) == nil {
		base = shared
	}
	dir, err := os.MkdirTemp(base, "cairn-zfs-")
	if err == nil {
		z, err = sim.NewZFS(dir, sim.Pool{Name: "tank", Size: 64 * gib})
	}
	if err != nil {
		t.Error(err)
	}
	export := func() (func() error, error) { return z.Export("tank") }
	m = machine{Runner: z, zpool: "tank", export: export, pretends: true, serial: new(atomic.Int64)}
	m.recorded = &transcript.Recorded{Tools: z, Shapes: recorded, T: t}
	return m, z, func() {
		if err := (drivertest.Tree{}).Fill(dir, "nothing"); err != nil { // which opens closed directories
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
}

// simHarness gives every test a machine of its own.
func simHarness(t *testing.T) drivertest.Harness {
	m, _ := simulated(t)
	h, recorded := m.harness(), shapes(t)
	h.New = func(t *testing.T) (drivertest.Storage, func()) {
		m, _, remove := simulate(t, recorded)
		return storage{machine: m, dataset: "tank/cairn"}, remove
	}
	return h
}

func TestConformance(t *testing.T) { drivertest.Conformance(t, simHarness(t)) }

func TestCrashSweep(t *testing.T) { drivertest.CrashSweep(t, simHarness(t)) }
