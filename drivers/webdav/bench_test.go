package webdav

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// parallel is how many connections the benchmarks use.
const parallel = 16

// BenchmarkSmallPut compares small PUTs over TLS with the same system calls made directly: store, fsync, rename, fsync of
// the directory. Both are limited by the disk, so their ratio is what matters.
func BenchmarkSmallPut(b *testing.B) {
	data := strings.Repeat("x", 4096)
	b.Run("direct", func(b *testing.B) {
		root, staging := b.TempDir(), b.TempDir()
		inParallel(b, func(n int64) error { return direct(root, staging, fmt.Sprint(n), data) })
	})
	b.Run("webdav", func(b *testing.B) {
		e, server := serve(b, &guard{}, io.Discard)
		_, err := e.Export(b.Context(), drivers.ExportSpec{
			ID: drivers.ExportID{Replica: "r"}, Share: "s", Root: b.TempDir(), Staging: b.TempDir(), Size: 1 << 40, EnforceSize: true,
			Rules: []cairn.AccessRule{localhost},
		})
		if err != nil {
			b.Fatal(err)
		}
		client := dial(b, server, netip.Addr{})
		inParallel(b, func(n int64) error {
			req, err := http.NewRequestWithContext(b.Context(), "PUT", fmt.Sprintf("%s/shares/s/%d", server.URL, n), strings.NewReader(data))
			if err != nil {
				return err
			}
			if res, err := roundTrip(client, req); err != nil || res.status != http.StatusCreated {
				return fmt.Errorf("%d %s: %w", res.status, res.body, err)
			}
			return nil
		})
	})
}

func inParallel(b *testing.B, do func(n int64) error) {
	var next atomic.Int64
	var workers sync.WaitGroup
	b.ResetTimer()
	for range parallel {
		workers.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				if err := do(n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
}

func direct(root, staging, name, data string) error {
	file, err := os.Create(filepath.Join(staging, name))
	if err != nil {
		return err
	}
	_, err = file.WriteString(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(staging, name), filepath.Join(root, name)); err != nil {
		return err
	}
	dir, err := os.Open(root)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
