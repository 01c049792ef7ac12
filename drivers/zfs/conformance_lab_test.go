//go:build lab

package zfs_test

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/deploy/lab/labdisk"
	"github.com/cairn-storage/cairn/drivers/drivertest"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// lab makes a zpool on a file.
func lab(t *testing.T) machine {
	dir := t.TempDir()
	disk := labdisk.New(t, 512<<20)
	m := machine{Runner: tool.NewMachine(), zpool: "tank", patience: 10 * time.Minute, serial: new(atomic.Int64)}
	m.recorded = &transcript.Recorded{Tools: tool.NewMachine(), Shapes: shapes(t), T: t}
	m.export = func() (func() error, error) {
		_, err := m.run("zpool", "export", m.zpool)
		return func() error {
			_, err := m.run("zpool", "import", "-d", filepath.Dir(disk), m.zpool)
			return err
		}, err
	}
	_, err := m.run("zpool", "create", "-O", "mountpoint="+filepath.Join(dir, "tank"), m.zpool, disk)
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
