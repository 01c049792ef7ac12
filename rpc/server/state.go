package server

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/google/uuid"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// maxToken bounds idempotency tokens, which are kept.
const maxToken = 128

// view returns the state that a read is answered from. A linearizable one knows whether the caller has been revoked in the
// meantime.
func (s *Server) view(ctx context.Context, read *pb.Read) (*fsm.View, error) {
	if read.GetStale() {
		return s.cfg.State.View(), nil
	}
	v, err := s.cfg.State.ReadView(ctx)
	if err != nil {
		return nil, fmt.Errorf("no up-to-date read is possible; --stale shows what this node last knew: %w", undecided(err))
	}
	return v, callerOf(ctx).claim.check(v, s.at())
}

// undecided makes sure that a failure of the cluster to answer wraps a sentinel.
func undecided(err error) error {
	for _, sentinel := range cairn.Sentinels() {
		if errors.Is(err, sentinel) {
			return err
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", err, cairn.ErrTimeout)
	}
	return err
}

// change is one request that changes something, on its way to a command.
type change struct {
	mutation *pb.Mutation
	// build makes the command from the state: it finds what the request names, and places what is new.
	build func(v *fsm.View) (fsm.Command, error)
	// again makes the command of the same request for the object with this ID. It is asked when build fails, which it may
	// do only because the request has been carried out: the share to delete is gone, the name that was to change has
	// changed, the last free space is taken.
	again func(id string) fsm.Command
	// own is build on the node's own copy, which may be old: it decides nothing that package fsm does not check again, and fails
	// where that will not do. nil if it never does.
	own func(v *fsm.View) (fsm.Command, error)
}

// outcome is what became of a change.
type outcome struct {
	id   string      // what the command answered
	cmd  fsm.Command // that was carried out, or tried
	view *fsm.View   // includes the change, unless it is a dry run
	dry  bool
	// replayed: the token was known, so this is the answer of the first time.
	replayed bool
}

// commit carries out a change on this node, which leads, or tries it.
func (s *Server) commit(ctx context.Context, c change) (outcome, error) {
	meta, err := s.meta(ctx, c.mutation)
	if err != nil {
		return outcome{}, err
	}
	v, cmd, err := s.build(ctx, c)
	if err != nil {
		if cmd = s.repeated(v, meta, c); cmd == nil {
			return outcome{}, err
		}
	}
	if c.mutation.GetDryRun() {
		result := s.cfg.State.Machine().DryRun(meta, cmd)
		return outcome{result.ID, cmd, v, true, result.Replayed}, result.Err
	}
	result, err := s.cfg.State.Apply(ctx, meta, cmd)
	if err == nil {
		err = result.Err
	}
	if err != nil {
		return outcome{}, undecided(err)
	}
	v, err = s.readBack(ctx, result.Index)
	return outcome{result.ID, cmd, v, false, result.Replayed}, err
}

// repeated returns the command of a request that has been carried out before under the same token, nil of any other. What
// such a request named may be gone or have another name by now, but the token knows what it was about.
func (s *Server) repeated(v *fsm.View, meta fsm.Meta, c change) fsm.Command {
	id, known := v.Request(meta.Token)
	if !known {
		return nil
	}
	cmd := c.again(id)
	if result := s.cfg.State.Machine().DryRun(meta, cmd); result.Err != nil || !result.Replayed {
		return nil
	}
	return cmd
}

// build makes the command. What fails on the node's own copy is tried again on a linearizable one: neither absence nor presence
// in an old copy proves anything.
func (s *Server) build(ctx context.Context, c change) (*fsm.View, fsm.Command, error) {
	if c.own != nil {
		v := s.cfg.State.View()
		if cmd, err := c.own(v); err == nil {
			return v, cmd, nil
		}
	}
	v, err := s.cfg.State.ReadView(ctx)
	if err != nil {
		return s.cfg.State.View(), nil, undecided(err)
	}
	cmd, err := c.build(v)
	return v, cmd, err
}

// meta is who asks, and under which token.
func (s *Server) meta(ctx context.Context, m *pb.Mutation) (fsm.Meta, error) {
	token := m.GetToken()
	if len(token) > maxToken {
		return fsm.Meta{}, fmt.Errorf("idempotency token: has %d characters, at most %d are allowed: %w", len(token), maxToken, cairn.ErrInvalid)
	}
	return fsm.Meta{Token: token, At: s.at(), Actor: callerOf(ctx).claim.String()}, nil
}

// readBack returns a state that includes the entry; newest stands for whichever is the newest.
func (s *Server) readBack(ctx context.Context, index uint64) (*fsm.View, error) {
	if v := s.cfg.State.View(); v.Index() >= index {
		return v, nil
	}
	v, err := s.cfg.State.ReadView(ctx)
	if err != nil {
		return nil, fmt.Errorf("the change is committed, but cannot be read back (%v): %w", err, cairn.ErrUnknownOutcome)
	}
	return v, nil
}

const newest uint64 = math.MaxUint64

// newID mints an identifier: UUIDv7, so that identifiers sort by the time of their making.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// isID reports whether the text has the form of an identifier, which no name may have.
func isID(text string) bool { return len(text) == 36 && uuid.Validate(text) == nil }

// gone says that what a change was about is not there any more, though the change has happened.
func gone(kind cairn.Kind, id string) error {
	return fmt.Errorf("%s %s: the request was carried out, and it is gone since: %w", kind, id, cairn.ErrNotFound)
}
