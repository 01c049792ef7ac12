package zfs_test

import (
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn/drivers/drivertest"
	"github.com/cairn-storage/cairn/drivers/sim"
)

// simulated is a machine whose tools are those of package sim.
func simulated(t *testing.T) (machine, *sim.ZFS) {
	base := t.TempDir()
	if shared := "/dev/shm"; unix.Access(shared, unix.W_OK) == nil {
		var err error
		base, err = os.MkdirTemp(shared, "cairn-zfs-")
		must(t, err)
		t.Cleanup(func() { reopened(t, base) })
	}
	z, err := sim.NewZFS(base, sim.Pool{Name: "tank", Size: 64 * gib})
	must(t, err)
	export := func() (func() error, error) { return z.Export("tank") }
	return machine{Runner: z, zpool: "tank", export: export, pretends: true, serial: new(atomic.Int64)}, z
}

// reopened removes a directory with directories that tests have closed.
func reopened(t *testing.T, base string) {
	must(t, drivertest.Tree{}.Fill(base, "nothing"))
	must(t, os.RemoveAll(base))
}

func TestConformance(t *testing.T) {
	m, _ := simulated(t)
	drivertest.Conformance(t, m.harness())
}

func TestCrashSweep(t *testing.T) {
	m, _ := simulated(t)
	drivertest.CrashSweep(t, m.harness())
}
