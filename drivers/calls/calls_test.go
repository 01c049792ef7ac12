package calls

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A call that hangs is left by its caller, keeps its lock, and gives it up in the end.
func TestDoIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Calls
		resume := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := Do(ctx, &c, "r1", func() (int, error) { <-resume; return 1, nil })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do of what hangs: %v", err)
		}
		if got, err := Do(t.Context(), &c, "r2", func() (int, error) { return 2, nil }); got != 2 || err != nil {
			t.Errorf("Do of another key meanwhile: %d, %v", got, err)
		}
		if got, err := Do(t.Context(), &c, "", func() (int, error) { return 3, nil }); got != 3 || err != nil {
			t.Errorf("Do without a key meanwhile: %d, %v", got, err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = Do(ctx, &c, "r1", func() (int, error) { t.Error("two calls on one key"); return 0, nil })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do of the same key meanwhile: %v", err)
		}
		close(resume)
		if got, err := Do(t.Context(), &c, "r1", func() (int, error) { return 4, nil }); got != 4 || err != nil {
			t.Errorf("Do of the same key afterwards: %d, %v", got, err)
		}
		c.Wait()
		if len(c.held) != 0 {
			t.Errorf("locks that nobody holds are remembered: %d", len(c.held))
		}
	})
}

func TestDoAfterTheEnd(t *testing.T) {
	var c Calls
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, key := range []string{"", "r1"} {
		if _, err := Do(ctx, &c, key, func() (int, error) { t.Error("ran"); return 0, nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("Do with an ended context and key %q: %v", key, err)
		}
	}
}

func TestDoPassesPanicsOn(t *testing.T) {
	var c Calls
	defer func() {
		if recover() != "oops" {
			t.Error("the panic did not reach the caller")
		}
		c.Wait()
	}()
	_, _ = Do(t.Context(), &c, "r1", func() (int, error) { panic("oops") })
}
