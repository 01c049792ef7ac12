package sim

import (
	"context"
	"fmt"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// faults are what goes wrong. They are guarded by ZFS.mu.
type faults struct {
	texts   []string
	hanging chan struct{} // closed when tools answer again; nil while they do
	denied  bool
}

func (f *faults) next() (string, bool) {
	if len(f.texts) == 0 {
		return "", false
	}
	text := f.texts[0]
	f.texts = f.texts[1:]
	return text, true
}

// FailNext makes the next command change nothing, write text and a newline to stderr, and exit with 1. Several wait in line.
func (z *ZFS) FailNext(text string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.faults.texts = append(z.faults.texts, text+"\n")
}

// Hang makes every command from now on wait, having done nothing, until release is called or its context ends.
func (z *ZFS) Hang() (release func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	hanging := make(chan struct{})
	z.faults.hanging = hanging
	return func() {
		z.mu.Lock()
		defer z.mu.Unlock()
		if z.faults.hanging == hanging {
			close(hanging)
			z.faults.hanging = nil
		}
	}
}

// wait waits while tools hang.
func (z *ZFS) wait(ctx context.Context, c tool.Cmd) error {
	z.mu.Lock()
	hanging := z.faults.hanging
	z.mu.Unlock()
	if hanging == nil {
		return nil
	}
	select {
	case <-hanging:
		return nil
	case <-ctx.Done():
		return ended(c, "killed; outcome unknown, look before trying again", ctx.Err(), cairn.ErrUnknownOutcome)
	}
}

// Deny makes commands run as a user without privileges, until allow is called.
func (z *ZFS) Deny() (allow func()) {
	return z.switchOn(&z.faults.denied)
}

// Suspend suspends a pool as ZFS does when its disks are gone: zpool still knows it, and zfs can open nothing in it. resume is
// "zpool clear".
func (z *ZFS) Suspend(pool string) (resume func()) {
	return z.switchOn(&z.pools[pool].suspended)
}

// Occupy makes a dataset busy as an open file does: it cannot be unmounted.
func (z *ZFS) Occupy(name string) (leave func(), err error) {
	z.mu.Lock()
	d := z.sets[name]
	z.mu.Unlock()
	if d == nil || d.mountedAt == "" {
		return nil, fmt.Errorf("sim: %s is not mounted", name)
	}
	return z.switchOn(&d.occupied), nil
}

func (z *ZFS) switchOn(fault *bool) (off func()) {
	set := func(on bool) {
		z.mu.Lock()
		defer z.mu.Unlock()
		*fault = on
	}
	set(true)
	return func() { set(false) }
}

// Export takes a pool away with all its datasets, as if its disks had been pulled before the machine started. restore brings
// it back with its contents.
func (z *ZFS) Export(name string) (restore func() error, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	p := z.pools[name]
	sets := z.below(name)
	for _, d := range reversed(sets) {
		if err := z.unmount(d); err != nil {
			return nil, err
		}
	}
	p.gone = make(map[string]*dataset)
	for _, d := range sets {
		p.gone[d.name] = d
		delete(z.sets, d.name)
	}
	return func() error {
		z.mu.Lock()
		defer z.mu.Unlock()
		for name, d := range p.gone {
			z.sets[name] = d
		}
		p.gone = nil
		for _, d := range z.below(name) {
			if err := z.mountIfWanted(d); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
