package consensus

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/hashicorp/raft"
)

// TestKilledWhileFounding: Raft founds a cluster in two writes, the term and then its first entry. A node that was killed between
// them has to be founded all the same, or it would have no voter for ever. One that has lost more than that must not be.
func TestKilledWhileFounding(t *testing.T) {
	for _, c := range []struct {
		name   string
		left   func(s *stores) error
		founds bool
	}{
		{"nothing yet", func(*stores) error { return nil }, true},
		{"the term alone", func(s *stores) error { return s.vote.SetUint64(keyTerm, foundingTerm) }, true},
		{"a later term, so the log is lost", func(s *stores) error { return s.vote.SetUint64(keyTerm, foundingTerm+1) }, false},
		{"a vote, so the log is lost", func(s *stores) error {
			return errors.Join(s.vote.SetUint64(keyTerm, foundingTerm), s.vote.SetUint64(keyVoteTerm, 1), s.vote.Set([]byte("LastVoteCand"), []byte("n1")))
		}, false},
		{"the first entry", func(s *stores) error {
			return errors.Join(s.vote.SetUint64(keyTerm, foundingTerm), s.logs.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration}))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := openStores(&Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}, t.Context().Done())
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			if err := c.left(s); err != nil {
				t.Fatal(err)
			}
			founds, err := s.empty()
			if err != nil || founds != c.founds {
				t.Errorf("can be founded: %t (%v), want %t", founds, err, c.founds)
			}
		})
	}
	at, dir := address(t), t.TempDir()
	s, err := openStores(&Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}, t.Context().Done())
	if err == nil {
		err = errors.Join(s.vote.SetUint64(keyTerm, foundingTerm), s.close())
	}
	if err != nil {
		t.Fatal(err)
	}
	apply(t, open(t, "n1", dir, at, alone("n1", at)), "x")
}
