//go:build lab

package zfs_test

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/drivers/drivertest"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// lab makes a zpool on a file.
func lab(t *testing.T) machine {
	dir := t.TempDir()
	vdevs := filepath.Join(dir, "vdevs")
	must(t, os.Mkdir(vdevs, 0o755))
	file, err := os.Create(filepath.Join(vdevs, "disk"))
	must(t, err)
	must(t, file.Truncate(512<<20))
	must(t, file.Close())
	m := machine{Runner: tool.NewMachine(), zpool: "tank", patience: 10 * time.Minute, serial: new(atomic.Int64)}
	m.recorded = &transcript.Recorded{Tools: tool.NewMachine(), Shapes: shapes(t), T: t}
	m.export = func() (func() error, error) {
		_, err := m.run("zpool", "export", m.zpool)
		return func() error {
			_, err := m.run("zpool", "import", "-d", vdevs, m.zpool)
			return err
		}, err
	}
	_, err = m.run("zpool", "create", "-O", "mountpoint="+filepath.Join(dir, "tank"), m.zpool, filepath.Join(vdevs, "disk"))
	must(t, err)
	t.Cleanup(func() {
		_, err := m.run("zpool", "destroy", m.zpool)
		must(t, err)
	})
	return m
}

func TestLabConformance(t *testing.T) { drivertest.Conformance(t, lab(t).harness()) }

// TestLabCrashSweep tries a few of the crash points that the simulator is swept with in full. CAIRN_SWEEP_EVERY=1 tries all, in an
// hour of emulation.
func TestLabCrashSweep(t *testing.T) {
	m := lab(t)
	m.every = 48
	drivertest.CrashSweep(t, m.harness())
}
