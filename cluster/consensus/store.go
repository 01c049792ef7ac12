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

// openStores opens or creates them. Writes that Raft cannot do without are repeated until stopped is closed.
func openStores(c *Config, stopped <-chan struct{}) (_ *stores, err error) {
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
	// failpoint: opening
	if err = removeUnfinished(c.Dir); err != nil {
		return nil, err
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(c.Dir, snapshotsKept, Logger(c.Logger))
	if err != nil {
		return nil, fmt.Errorf("raft snapshots: %w", err)
	}
	if s.snapshots, err = guard.NewInstalls(files); err != nil {
		return nil, fmt.Errorf("raft: %w", err)
	}
	insisting := guard.Persistence{Stopped: stopped, Logger: c.Logger}
	s.vote = &guard.VoteStore{StableStore: s.stable, Persistence: insisting}
	var logs raft.LogStore = s.log
	if c.Middleware != nil {
		logs = c.Middleware(logs)
	}
	s.logs = s.snapshots.Watch(s.disk.Watch(&guard.Suffix{LogStore: logs, Persistence: insisting}))
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

// Keys of Raft in the stable store.
var (
	keyTerm     = []byte("CurrentTerm")
	keyVoteTerm = []byte("LastVoteTerm")
)

// foundingTerm is the term of the entry with which a cluster begins.
const foundingTerm = 1

// empty reports whether the node has never been part of a Raft cluster. Raft founds one in two writes, the term and then the
// entry. A node that was killed between them holds the first and takes itself for a member, of nothing: it is put back to what
// it was, so that it can be founded.
func (s *stores) empty() (bool, error) {
	exists, err := raft.HasExistingState(s.logs, s.vote, s.snapshots)
	if err != nil {
		return false, fmt.Errorf("raft: %w", err)
	}
	if !exists {
		return true, nil
	}
	if begun, err := s.onlyBegun(); err != nil || !begun {
		return false, err
	}
	if err := s.vote.SetUint64(keyTerm, 0); err != nil {
		return false, fmt.Errorf("raft term: %w", err)
	}
	return true, nil
}

// onlyBegun: the founding term is all that there is. Whoever has lost his log has a later term, or has voted.
func (s *stores) onlyBegun() (bool, error) {
	last, err := s.logs.LastIndex()
	if err != nil {
		return false, fmt.Errorf("raft log: %w", err)
	}
	term, err := s.vote.GetUint64(keyTerm)
	if err != nil {
		return false, fmt.Errorf("raft term: %w", err)
	}
	_, err = s.vote.GetUint64(keyVoteTerm)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return false, fmt.Errorf("raft vote: %w", err)
	}
	voted := err == nil
	return last == 0 && s.snapshots.Newest() == guard.Point{} && term == foundingTerm && !voted, nil
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
