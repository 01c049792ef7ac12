package dir_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
)

// TestSteps holds every operation to the order of its steps. A crash sweep cannot see what is durable; here a reader can:
// what a COMMIT depends on is synced above it. Steps of one copy come in any order and are shown counted and sorted.
func TestSteps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool")
	var recorded recorder
	var p *dir.Pool
	datadriven.RunTest(t, "testdata/steps", func(t *testing.T, d *datadriven.TestData) string {
		recorded.take()
		if d.Cmd == "open" {
			var err error
			p, err = dir.Open(t.Context(), dir.Config{Path: path, PoolID: poolID, Step: recorded.step})
			must(t, err)
			return recorded.take()
		}
		args := make([]string, 3)
		for i, arg := range d.CmdArgs {
			args[i] = arg.Key
		}
		if err := operate(t.Context(), p, path, d.Cmd, args); err != nil {
			return recorded.take() + "error: " + err.Error() + "\n"
		}
		return recorded.take()
	})
	must(t, p.Close())
}

func operate(ctx context.Context, p *dir.Pool, path, op string, args []string) error {
	id, snap := cairn.ReplicaID(args[0]), cairn.SnapshotID(args[1])
	spec := drivers.CreateSpec{ID: id, Epoch: 1, Size: gib}
	var err error
	switch op {
	case "create":
		_, err = p.Create(ctx, spec)
	case "clone":
		_, err = p.Clone(ctx, spec, cairn.ReplicaID(args[1]), cairn.SnapshotID(args[2]))
	case "delete":
		err = p.Delete(ctx, id, 1)
	case "resize-with-higher-epoch":
		err = p.Resize(ctx, id, 2, 2*gib)
	case "snapshot":
		_, err = p.CreateSnapshot(ctx, id, 2, snap)
	case "delete-snapshot":
		err = p.DeleteSnapshot(ctx, id, 2, snap)
	case "revert":
		err = p.Revert(ctx, id, 2, snap)
	case "adopt":
		_, err = p.Adopt(ctx, spec, args[1])
	case "release":
		err = p.Release(ctx, id, 2, args[1])
	case "put": // a client
		err = os.WriteFile(filepath.Join(path, args[0], "data", args[1]), []byte("data"), 0o644)
	default:
		err = fmt.Errorf("no operation %q", op)
	}
	return err
}

// recorder is a Step that remembers names.
type recorder struct {
	mu    sync.Mutex
	names []string
}

func (r *recorder) step(name string, do func() error) error {
	r.mu.Lock()
	r.names = append(r.names, name)
	r.mu.Unlock()
	return do()
}

// take renders what was recorded since the last take.
func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := r.names
	r.names = nil
	var b strings.Builder
	for len(names) > 0 {
		end := slices.IndexFunc(names, func(name string) bool { return !strings.HasPrefix(name, "copy ") })
		switch {
		case end == 0:
			end = 1
		case end < 0:
			end = len(names)
		}
		copies := slices.Clone(names[:end])
		slices.Sort(copies)
		for len(copies) > 0 {
			n := len(copies) - len(slices.DeleteFunc(slices.Clone(copies), func(name string) bool { return name == copies[0] }))
			if n > 1 {
				fmt.Fprintf(&b, "%s (%d times)\n", copies[0], n)
			} else {
				fmt.Fprintln(&b, copies[0])
			}
			copies = copies[n:]
		}
		names = names[end:]
	}
	return b.String()
}
