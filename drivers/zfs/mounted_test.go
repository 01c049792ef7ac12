package zfs_test

import (
	"context"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/zfs"
)

// TestMountedMeanwhile: a call that only looks mounts a replica that is there already and not mounted yet, while the one that makes
// or mounts it is about to.
func TestMountedMeanwhile(t *testing.T) {
	m, _ := simulated(t)
	for _, verb := range []string{"create", "mount"} {
		t.Run(verb, func(t *testing.T) {
			f := newFixture(t, m, nil)
			if verb == "mount" {
				f.create("r1", nil)
				f.zfs("unmount", f.s.dataset+"/r1")
			}
			f.open(func(cfg *zfs.Config) { cfg.Runner = overtaken{cfg.Runner, verb} })
			object, err := f.p.Create(f.Context(), drivers.CreateSpec{ID: "r1", Epoch: 1, Size: gib / 8})
			if err != nil || !object.Ready {
				t.Errorf("%+v, %v; want the replica", object, err)
			}
		})
		t.Run(verb+" of what is busy", func(t *testing.T) {
			f := newFixture(t, m, nil)
			f.create("r1", nil)
			f.zfs("unmount", f.s.dataset+"/r1")
			f.open(func(cfg *zfs.Config) { cfg.Runner = busy{cfg.Runner} })
			_, err := f.p.Stat(f.Context(), "r1")
			f.is("Stat", err, cairn.ErrInUse)
		})
	}
}

// overtaken is a machine on which somebody else has mounted the dataset a moment before a command does.
type overtaken struct {
	zfs.Runner
	verb string
}

func (o overtaken) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	result, err := o.Runner.Run(ctx, c)
	if err == nil && c.Name == "zfs" && c.Args[0] == o.verb && strings.HasSuffix(c.Args[len(c.Args)-1], "/r1") {
		return refuse(c)
	}
	return result, err
}

// busy is one on which nothing can be mounted.
type busy struct{ zfs.Runner }

func (b busy) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	if c.Name == "zfs" && c.Args[0] == "mount" {
		return refuse(c)
	}
	return b.Runner.Run(ctx, c)
}

func refuse(c tool.Cmd) (tool.Result, error) {
	return tool.Result{}, &tool.ExitError{Cmd: c.String(), Code: 1, Stderr: []byte("cannot mount '" + c.Args[len(c.Args)-1] + "': mountpoint or dataset is busy\n")}
}
