package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
)

// Every so many files one is damaged in this way.
const (
	overwriteEvery = 37
	deleteEvery    = 41
	addedFiles     = 200
	renamedDirs    = 3
)

// damage changes the share, and d.current with it.
func (d *demo) damage(ctx context.Context) (string, error) {
	var overwritten, deleted []string
	for i, name := range d.source.files {
		switch {
		case i%overwriteEvery == 0:
			overwritten = append(overwritten, name)
		case i%deleteEvery == 0:
			deleted = append(deleted, name)
		}
	}
	if err := d.overwrite(ctx, overwritten); err != nil {
		return "", err
	}
	if err := each(ctx, deleted, d.parallel, d.files.Delete); err != nil {
		return "", err
	}
	for _, name := range deleted {
		delete(d.current, name)
	}
	if err := d.files.Mkdir(ctx, "added"); err != nil {
		return "", err
	}
	var added []string
	for i := range addedFiles {
		added = append(added, fmt.Sprintf("added/%03d", i))
	}
	if err := d.overwrite(ctx, added); err != nil {
		return "", err
	}
	renamed := d.topDirs()
	for _, dir := range renamed {
		if err := d.files.Move(ctx, dir, dir+".renamed"); err != nil {
			return "", err
		}
		d.current.rename(dir, dir+".renamed")
	}
	return fmt.Sprintf("%d files overwritten, %d deleted, %d added; renamed with everything in them: %s",
		len(overwritten), len(deleted), len(added), strings.Join(renamed, ", ")), nil
}

// overwrite puts other content into files.
func (d *demo) overwrite(ctx context.Context, names []string) error {
	var mu sync.Mutex
	return each(ctx, names, d.parallel, func(ctx context.Context, name string) error {
		content := bytes.Repeat([]byte("damaged: "+name+"\n"), 100)
		if err := d.files.Put(ctx, name, bytes.NewReader(content), int64(len(content))); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		d.current[name] = sha256.Sum256(content)
		return nil
	})
}

// topDirs are a few directories at the top of the tree that hold most files.
func (d *demo) topDirs() []string {
	files := map[string]int{}
	for _, name := range d.source.files {
		if top, _, nested := strings.Cut(name, "/"); nested {
			files[top]++
		}
	}
	var dirs []string
	for _, dir := range d.source.dirs {
		if path.Dir(dir) == "." {
			dirs = append(dirs, dir)
		}
	}
	slices.SortFunc(dirs, func(a, b string) int { return files[b] - files[a] })
	return dirs[:min(renamedDirs, len(dirs))]
}
