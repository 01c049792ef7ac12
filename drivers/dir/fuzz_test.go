package dir_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
)

// FuzzReceive: whatever comes as a stream, nothing is written outside the replica, and what was refused leaves nothing that is
// ready.
func FuzzReceive(f *testing.F) {
	root := f.TempDir()
	p, err := dir.Open(f.Context(), dir.Config{Path: filepath.Join(root, "pool"), PoolID: poolID})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := p.Close(); err != nil {
			f.Error(err)
		}
	})
	object, err := p.Create(f.Context(), drivers.CreateSpec{ID: "source", Epoch: 1, Size: gib})
	if err != nil {
		f.Fatal(err)
	}
	for name, text := range map[string]string{"file": "text", "d/inner": "more"} {
		path := filepath.Join(object.Root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.Symlink("../../..", filepath.Join(object.Root, "up")); err != nil {
		f.Fatal(err)
	}
	if _, err := p.CreateSnapshot(f.Context(), "source", 1, "s"); err != nil {
		f.Fatal(err)
	}
	var stream bytes.Buffer
	if err := p.Send(f.Context(), "source", drivers.SendSpec{Snapshot: "s"}, &stream); err != nil {
		f.Fatal(err)
	}
	f.Add(stream.Bytes())
	f.Add(bytes.Replace(stream.Bytes(), []byte("tree/file"), []byte("tree/../x"), 1))
	f.Add(bytes.ReplaceAll(stream.Bytes(), []byte("tree/d"), []byte("tree/u")))
	f.Add(stream.Bytes()[:stream.Len()/2])
	spec := drivers.ReceiveSpec{CreateSpec: drivers.CreateSpec{ID: "copy", Epoch: 1, Size: gib}, Snapshot: "s"}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := p.Receive(t.Context(), spec, bytes.NewReader(data))
		object, statErr := p.Stat(t.Context(), "copy")
		if err != nil && statErr == nil && object.Ready {
			t.Errorf("a stream that was refused (%v) has made a replica", err)
		}
		if statErr == nil {
			if err := p.DeleteSnapshot(t.Context(), "copy", 1, "s"); err != nil {
				t.Error(err)
			}
			if err := p.Delete(t.Context(), "copy", 1); err != nil {
				t.Error(err)
			}
		}
		for where, want := range map[string]int{root: 1, filepath.Join(root, "pool"): 3, filepath.Join(root, "pool", ".cairn-work"): 0} {
			entries, err := os.ReadDir(where)
			if err != nil || len(entries) != want {
				t.Errorf("%s holds %v (%v)", where, entries, err)
			}
		}
	})
}
