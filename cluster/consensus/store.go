package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/guard"
)

const (
	logFile  = "log.db"
	voteFile = "vote.db"
)

// snapshotsKept is how many snapshots stay on disk: one that is good while the next is written.
const snapshotsKept = 2

// logCache is how many entries are kept decoded for followers that are close behind.
const logCache = 2 * maxAppendEntries

// stores is everything durable of the engine. It outlives a Raft instance that is restarted in place.
type stores struct {
	log       *raftboltdb.BoltStore
	stable    *raftboltdb.BoltStore
	logs      raft.LogStore // the log, watched
	vote      *guard.VoteStore
	snapshots *guard.Installs
	disk      *guard.Disk
}

func openStores(c *Config) (_ *stores, err error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("raft: %w", err)
	}
	s := &stores{disk: guard.NewDisk()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.log, err = openBolt(filepath.Join(c.Dir, logFile)); err != nil {
		return nil, err
	}
	// Term and vote live in a file of their own. Raft has no answer to a term that cannot be written but to panic, and a
	// disk that the log has filled must not bring that about: this file reuses its few pages and does not grow.
	if s.stable, err = openBolt(filepath.Join(c.Dir, voteFile)); err != nil {
		return nil, err
	}
	if err = removeUnfinished(c.Dir); err != nil {
		return nil, err
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(c.Dir, snapshotsKept, Logger(c.Logger))
	if err != nil {
		return nil, fmt.Errorf("raft snapshots: %w", err)
	}
	s.snapshots = guard.NewInstalls(files)
	s.vote = &guard.VoteStore{StableStore: s.stable}
	var logs raft.LogStore = s.log
	if c.Middleware != nil {
		logs = c.Middleware(logs)
	}
	s.logs = s.disk.Watch(logs)
	return s, nil
}

// removeUnfinished deletes snapshots that a crash has left half written. Raft ignores them, and never removes them.
func removeUnfinished(dir string) error {
	unfinished, err := filepath.Glob(filepath.Join(dir, "snapshots", "*.tmp"))
	if err != nil {
		return fmt.Errorf("raft snapshots: %w", err)
	}
	for _, path := range unfinished {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("raft snapshots: %w", err)
		}
	}
	return nil
}

func openBolt(path string) (*raftboltdb.BoltStore, error) {
	store, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout:        time.Second,
			NoFreelistSync: true, // or every append writes the list of the pages that a truncation freed
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: is in use by another process: %w", path, cairn.ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return store, nil
}

func (s *stores) close() error {
	var failed []error
	for _, store := range []*raftboltdb.BoltStore{s.log, s.stable} {
		if store != nil {
			failed = append(failed, store.Close())
		}
	}
	return errors.Join(failed...)
}

// empty reports whether the node has never been part of a Raft cluster.
func (s *stores) empty() (bool, error) {
	exists, err := raft.HasExistingState(s.logs, s.vote, s.snapshots)
	if err != nil {
		return false, fmt.Errorf("raft: %w", err)
	}
	return !exists, nil
}

// wipeLog deletes every log entry. Snapshot, term and vote stay.
func (s *stores) wipeLog() error {
	first, err := s.logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	last, err := s.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	if first == 0 {
		return nil
	}
	if err := s.logs.DeleteRange(first, last); err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	return nil
}
