package ganesha_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/nfs/compound"
)

// TestNativeReach: what is served to this machine is reached, and nothing else.
func TestNativeReach(t *testing.T) {
	n := newNative(t)
	at := n.export(n.spec)
	n.ok(compound.Reach(n.ctx, at.URL))
	for name, location := range map[string]string{
		"a share that is not there":  strings.Replace(at.URL, string(shareID), "0198c000-0000-7000-8000-0000000000b2", 1),
		"a file":                     at.URL + "/hello",
		"a port that nobody has":     "nfs://127.0.0.1:1/srv",
		"a server that is not there": "127.0.0.254:/srv",
	} {
		if err := compound.Reach(n.ctx, location); !errors.Is(err, cairn.ErrUnavailable) {
			t.Errorf("%s: %v, want cairn.ErrUnavailable", name, err)
		}
	}
	if err := compound.Reach(n.ctx, "somewhere:/srv"); !errors.Is(err, cairn.ErrInvalid) {
		t.Errorf("a name: %v, want cairn.ErrInvalid", err)
	}
	others := n.spec
	others.Rules = []cairn.AccessRule{{ID: "r2", Kind: cairn.AccessIP, Who: "10.0.0.0/8", Level: cairn.AccessRO, State: cairn.RuleActive}}
	n.export(others)
	if err := compound.Reach(n.ctx, at.URL); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("a share that is served to others: %v, want cairn.ErrUnavailable", err)
	}
	ended, cancel := context.WithTimeout(n.ctx, time.Nanosecond)
	defer cancel()
	if err := compound.Reach(ended, at.URL); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the end of the context: %v", err)
	}
}
