package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-storage/cairn/chaos/dav"
)

// upload writes the whole tree into the share and returns the sums of what it sent, computed while it was sent, and the
// number of bytes.
func upload(ctx context.Context, files *dav.Client, t tree, parallel int) (manifest, int64, error) {
	if err := makeDirs(ctx, files, t.dirs, parallel); err != nil {
		return nil, 0, err
	}
	var mu sync.Mutex
	var bytes atomic.Int64
	sums := manifest{}
	err := each(ctx, t.files, parallel, func(ctx context.Context, name string) error {
		sum, n, err := uploadFile(ctx, files, filepath.Join(t.root, filepath.FromSlash(name)), name)
		if err != nil {
			return err
		}
		bytes.Add(n)
		mu.Lock()
		defer mu.Unlock()
		sums[name] = sum
		return nil
	})
	return sums, bytes.Load(), err
}

func uploadFile(ctx context.Context, files *dav.Client, path, name string) (sum, int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return sum{}, 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return sum{}, 0, err
	}
	hash := sha256.New()
	if err := files.Put(ctx, name, io.TeeReader(file, hash), info.Size()); err != nil {
		return sum{}, 0, err
	}
	return sum(hash.Sum(nil)), info.Size(), nil
}

// makeDirs makes directories level by level, those of one level at the same time.
func makeDirs(ctx context.Context, files *dav.Client, dirs []string, parallel int) error {
	levels := map[int][]string{}
	for _, dir := range dirs {
		depth := strings.Count(dir, "/")
		levels[depth] = append(levels[depth], dir)
	}
	for _, depth := range slices.Sorted(maps.Keys(levels)) {
		if err := each(ctx, levels[depth], parallel, files.Mkdir); err != nil {
			return err
		}
	}
	return nil
}

// download reads every file that the share lists, and returns the sums, the directories and the number of bytes. A file of
// another length than the list says is an error.
func download(ctx context.Context, files *dav.Client, parallel int) (manifest, map[string]bool, int64, error) {
	list, err := files.List(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	var mu sync.Mutex
	var bytes atomic.Int64
	sums := manifest{}
	err = each(ctx, slices.Sorted(maps.Keys(list.Files)), parallel, func(ctx context.Context, name string) error {
		sum, n, err := downloadFile(ctx, files, name)
		if err != nil {
			return err
		}
		if n != list.Files[name] {
			return fmt.Errorf("mismatch: %q has %d bytes, and the list says %d", name, n, list.Files[name])
		}
		bytes.Add(n)
		mu.Lock()
		defer mu.Unlock()
		sums[name] = sum
		return nil
	})
	return sums, list.Dirs, bytes.Load(), err
}

func downloadFile(ctx context.Context, files *dav.Client, name string) (sum, int64, error) {
	body, err := files.Get(ctx, name)
	if err != nil {
		return sum{}, 0, err
	}
	defer body.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, body)
	if err != nil {
		return sum{}, 0, fmt.Errorf("read %q: %w", name, err)
	}
	return sum(hash.Sum(nil)), n, nil
}

// each calls do for all names, some of them at the same time, and stops at the first error.
func each(ctx context.Context, names []string, parallel int, do func(ctx context.Context, name string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, name := range names {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err // another one has failed, or somebody has pressed Ctrl-C
			}
			return do(ctx, name)
		})
	}
	return group.Wait()
}
