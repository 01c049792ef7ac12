package btrfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cairn-storage/cairn"
)

// The files that say what is ours. Nobody else has reason to choose these names.
const (
	poolMarkFile = ".cairn-pool"
	markFile     = ".cairn-replica"
)

// markFormat is raised when an older binary could misread a mark.
const markFormat = 1

var (
	// errNoMark: there is certainly no mark. Every other error says nothing about whether there is one.
	errNoMark = errors.New("carries no mark")
	// errForeign: something that is not ours has the name.
	errForeign = fmt.Errorf("foreign object: %w", cairn.ErrExists)
)

type poolMark struct {
	Format int          `json:"format"`
	Pool   cairn.PoolID `json:"pool"`
}

// state is where the data of a placed replica is that counts: everything else in its home is disposable.
type state string

const (
	stateReady     state = "ready"     // in data
	stateAdopting  state = "adopting"  // in origin, or still under its own name
	stateAdopted   state = "adopted"   // in data, and origin is not gone yet
	stateReleasing state = "releasing" // in data, which is being copied to out
	stateReleased  state = "released"  // in out, or already under its new name
)

// mark is everything that is known of a replica and cannot be seen in its subvolumes.
type mark struct {
	Format   int              `json:"format"`
	ID       cairn.ReplicaID  `json:"id"`
	Epoch    uint64           `json:"epoch"`
	Size     int64            `json:"size"`
	State    state            `json:"state"`
	Source   cairn.SnapshotID `json:"source,omitempty"`
	Reverted cairn.SnapshotID `json:"reverted,omitempty"`
	// Adopted is the name that the data had before it was adopted, Released the one that it is getting.
	Adopted  string `json:"adopted,omitempty"`
	Released string `json:"released,omitempty"`
}

// checkPoolMark makes sure that the directory is this pool. Whoever wants to say that something is absent has to ask:
// under an unmounted pool everything is.
func (p *Pool) checkPoolMark() error {
	var m poolMark
	switch err := readJSON(filepath.Join(p.path, poolMarkFile), &m); {
	case errors.Is(err, errNoMark):
		return fmt.Errorf("%w of a pool; is its disk mounted?: %w", errNoMark, cairn.ErrUnavailable)
	case err != nil:
		return err
	case m.Format != markFormat:
		return fmt.Errorf("mark has format %d and this binary understands %d: %w", m.Format, markFormat, cairn.ErrUpgrade)
	case m.Pool != p.poolID:
		return fmt.Errorf("belongs to pool %s, not to %s: %w", m.Pool, p.poolID, cairn.ErrPrecondition)
	}
	return nil
}

// readMark reads the mark of the replica in directory dir, whoever's it is.
func readMark(dir string) (mark, error) {
	var m mark
	if err := readJSON(filepath.Join(dir, markFile), &m); err != nil {
		return mark{}, err
	}
	if m.Format != markFormat {
		return mark{}, fmt.Errorf("mark in %s: has format %d and this binary understands %d: %w", dir, m.Format, markFormat, cairn.ErrUpgrade)
	}
	return m, nil
}

func (o *op) writeMark(dir string, m mark) error {
	m.Format = markFormat
	return o.writeJSON("mark "+string(m.State), filepath.Join(dir, markFile), m)
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errNoMark
	case err != nil:
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("mark %s: %w: %w", path, cairn.ErrCorrupt, err)
	}
	return nil
}

// writeJSON replaces a file in one step that is durable when it returns. The temporary name is fixed, so that what a crash
// leaves is overwritten and not collected.
func (o *op) writeJSON(what, path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return o.do("write "+what, func() error {
		if err := writeDurably(path+".tmp", append(data, '\n')); err != nil {
			return err
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			return err
		}
		return syncDirs(filepath.Dir(path))
	})
}

func writeDurably(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
