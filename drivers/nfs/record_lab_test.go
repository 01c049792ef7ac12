//go:build lab

package nfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn/drivers/sim"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

func TestLabRecordTools(t *testing.T) {
	machine := tool.NewMachine()
	version, err := machine.Run(t.Context(), tool.Cmd{Name: "dpkg-query", Args: []string{"-W", "nfs-kernel-server", "mount"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/srv/root", sharePath, "/srv/cairn/" + string(snapshotID)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	recorder := &transcript.Recorder{Tools: machine, Names: &transcript.Names{Order: sim.Order}, Header: strings.Split(strings.ReplaceAll(strings.TrimSpace(string(version.Stdout)), "\t", " "), "\n")}
	var busy *os.File
	useTools(t, recorder, func() {
		if busy, err = os.Create(filepath.Join(sharePath, "busy")); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if err := busy.Close(); err != nil {
			t.Fatal(err)
		}
	})
	recorded, err := recorder.Transcript()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("CAIRN_LAB_OUT"), "tools.txt"), []byte(recorded.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
