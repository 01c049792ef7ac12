package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairn-storage/cairn"
)

// look says how far something is: in words, and whether it is done. An error ends the waiting.
type look func(ctx context.Context) (state string, done bool, err error)

// wait looks until what was asked for is done, unless --wait=false. It looks again after every event of the resource with
// this ID; after is the sequence number from which events can tell something new. what names it for people.
func (r *request) wait(ctx context.Context, what, id string, after uint64, look look) error {
	if !r.flags.change.wait || r.flags.change.dryRun {
		return nil
	}
	if r.flags.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.flags.timeout)
		defer cancel()
	}
	show := newProgress(r.Stderr, what, r.Now, r.flags.change.progress, r.Terminal(r.Stderr))
	defer show.end()
	var last string
	err := r.client.Wait(ctx, id, after, func(ctx context.Context) (bool, error) {
		state, done, err := look(ctx)
		if err == nil {
			last = state
			show.state(state)
		}
		return done, err
	})
	return waitError(what, last, err)
}

// waitError says where it was when the waiting ended.
func waitError(what, last string, err error) error {
	switch {
	case err == nil:
		return nil
	case last == "":
		return err
	case errors.Is(err, cairn.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %s: %w; it goes on, see: cairn why %s", what, last, cairn.ErrTimeout, what)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %s: %w; it goes on, see: cairn why %s", what, last, context.Canceled, what)
	}
	return err
}
