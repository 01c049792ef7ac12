//go:build lab

package replica

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/deploy/lab/labdisk"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/zfs"
)

// TestLabCopyCrashSweep is TestCrashCopy between two real zpools, with a few of its crash points.
func TestLabCopyCrashSweep(t *testing.T) {
	tools := tool.NewMachine()
	run := func(t testing.TB, name string, args ...string) string {
		t.Helper()
		result, err := tools.Run(t.Context(), tool.Cmd{Name: name, Args: args})
		ok(t, err)
		return string(result.Stdout)
	}
	base := t.TempDir()
	zpools := map[cairn.NodeID]string{"node-1": "copyone", "node-2": "copytwo"}
	for _, zpool := range zpools {
		run(t, "zpool", "create", "-O", "mountpoint="+filepath.Join(base, zpool), zpool, labdisk.New(t, 512<<20))
		defer run(t, "zpool", "destroy", zpool)
	}
	serial := 0
	sweepCopies(t, func(*testing.T) *disks { // each has datasets of its own
		serial++
		serial := serial
		dataset := func(id cairn.NodeID) string { return fmt.Sprintf("%s/t%d", zpools[id], serial) }
		return &disks{
			caps: drivers.CapabilitiesOf(&zfs.Pool{}),
			open: func(m *member) drivers.Pool {
				pool, err := zfs.Open(t.Context(), zfs.Config{
					Dataset: dataset(m.id), PoolID: cairn.MakePoolID(m.id, "data"), Logger: slog.New(slog.DiscardHandler), Runner: mortal{tools, m},
				})
				ok(t, err)
				return pool
			},
			left: func(t testing.TB, id cairn.NodeID) string {
				out := run(t, "zfs", "list", "-Hp", "-r", "-t", "filesystem,snapshot", "-o", "name,userrefs", dataset(id))
				return strings.ReplaceAll(out, dataset(id), "")
			},
		}
	}, 96)
}
