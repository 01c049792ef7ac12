//go:build lab

package zfs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// TestLabRecordLife records testdata/life.txt.
func TestLabRecordLife(t *testing.T) {
	m := lab(t)
	root, err := m.run("zfs", "get", "-Hp", "-o", "value", "mountpoint", m.zpool)
	must(t, err)
	version, err := m.run("zfs", "version")
	must(t, err)
	r := &transcript.Recorder{
		Tools: tool.NewMachine(), Names: names(filepath.Dir(strings.TrimSpace(root))), Header: []string{strings.Join(strings.Fields(version), " ")},
	}
	m.Runner, m.recorded = r, nil
	f := &fixture{T: t, s: storage{machine: m, dataset: m.zpool + "/cairn"}}
	f.open(nil)
	life(f, func(what string) { r.Comment(what) })
	must(t, f.p.Close())
	recorded, err := r.Transcript()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(os.Getenv("CAIRN_LAB_OUT"), "life.txt"), []byte(recorded.String()), 0o644))
}
