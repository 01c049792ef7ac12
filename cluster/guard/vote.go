package guard

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"
)

// VoteStore writes the term and the candidate of a vote as one record. Raft writes the term first; if it crashes before it
// has written the candidate, it finds the new term with the candidate of an earlier vote, and grants that candidate its
// vote again without looking at its log. If a term or a vote cannot be written at all, Raft has no answer but to panic.
//
// Raft uses a stable store from one goroutine at a time.
type VoteStore struct {
	raft.StableStore
	Persistence
	term uint64 // that a candidate is awaited for; 0 = none
}

// Keys of Raft, and the key of the one record.
const (
	keyVoteTerm      = "LastVoteTerm"
	keyVoteCandidate = "LastVoteCand"
	keyVote          = "Vote"
)

// SetUint64 implements raft.StableStore. The term of a vote is only remembered: it is written with the candidate.
func (s *VoteStore) SetUint64(key []byte, value uint64) error {
	if string(key) != keyVoteTerm {
		// failpoint: term-writing
		err := s.insist("its term or vote", func() error { return s.StableStore.SetUint64(key, value) })
		// failpoint: term-written
		return err
	}
	s.term = value
	return nil
}

// Set implements raft.StableStore.
func (s *VoteStore) Set(key, value []byte) error {
	if string(key) != keyVoteCandidate {
		return s.insist("its term or vote", func() error { return s.StableStore.Set(key, value) })
	}
	if s.term == 0 {
		return fmt.Errorf("vote: candidate without a term")
	}
	record := append(binary.BigEndian.AppendUint64(nil, s.term), value...)
	s.term = 0
	// failpoint: vote-writing
	err := s.insist("its term or vote", func() error { return s.StableStore.Set([]byte(keyVote), record) })
	// failpoint: vote-written
	return err
}

// GetUint64 implements raft.StableStore.
func (s *VoteStore) GetUint64(key []byte) (uint64, error) {
	if string(key) != keyVoteTerm {
		return s.StableStore.GetUint64(key)
	}
	term, _, err := s.vote()
	return term, err
}

// Get implements raft.StableStore.
func (s *VoteStore) Get(key []byte) ([]byte, error) {
	if string(key) != keyVoteCandidate {
		return s.StableStore.Get(key)
	}
	_, candidate, err := s.vote()
	return candidate, err
}

// vote reads the record. The error for "there is none" is the inner store's, because Raft compares its text.
func (s *VoteStore) vote() (term uint64, candidate []byte, err error) {
	record, err := s.StableStore.Get([]byte(keyVote))
	if err != nil {
		return 0, nil, err
	}
	if len(record) < 8 {
		return 0, nil, fmt.Errorf("vote: record has %d bytes", len(record))
	}
	return binary.BigEndian.Uint64(record), bytes.Clone(record[8:]), nil
}
