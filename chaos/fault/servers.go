package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/local"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

func kill(_ context.Context, _ *World, target *local.Server, _ *rand.Rand) (Heal, error) {
	if err := target.Kill(); err != nil {
		return nil, err
	}
	return func(context.Context) error { return revive(target) }, nil
}

// revive starts a server unless it runs.
func revive(s *local.Server) error {
	if s.Running() {
		return nil
	}
	return s.Start()
}

func pause(_ context.Context, _ *World, target *local.Server, _ *rand.Rand) (Heal, error) {
	if err := target.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	return func(context.Context) error { return target.Signal(syscall.SIGCONT) }, nil
}

// stopTimeout is how long a server may take to end when it is asked to.
const stopTimeout = 30 * time.Second

func restart(ctx context.Context, w *World, _ *local.Server, _ *rand.Rand) (Heal, error) {
	servers := w.Cluster.Servers()
	heal := func(context.Context) error {
		var errs []error
		for _, s := range servers {
			errs = append(errs, revive(s))
		}
		return errors.Join(errs...)
	}
	for _, s := range servers {
		stop, cancel := context.WithTimeout(ctx, stopTimeout)
		err := s.Stop(stop)
		cancel()
		if err == nil {
			err = revive(s)
		}
		if err == nil {
			err = w.Cluster.AwaitUp(ctx, s)
		}
		if err != nil {
			return heal, fmt.Errorf("restart of %s: %w", s.Name, err)
		}
	}
	return heal, nil
}

// transfers is how often a storm moves the leadership.
const transfers = 5

func transfer(ctx context.Context, w *World, _ *local.Server, _ *rand.Rand) (Heal, error) {
	for range transfers {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := w.API.Cluster().TransferLeadership(ctx, &cairnv1.TransferLeadershipRequest{})
		cancel()
		if err != nil {
			w.Log("transfer of the leadership: %v", err) // refused in the middle of an election, which is the point
		}
	}
	return none, nil
}

func drain(ctx context.Context, w *World, target *local.Server, random *rand.Rand) (Heal, error) {
	name, err := w.nodeName(ctx, target, random)
	if err != nil {
		return nil, err
	}
	heal := func(ctx context.Context) error {
		_, err := w.API.Nodes().DrainNode(ctx, &cairnv1.DrainNodeRequest{Node: name, Undo: true})
		if errors.Is(err, cairn.ErrNotFound) {
			return nil // it was removed meanwhile
		}
		return err
	}
	_, err = w.API.Nodes().DrainNode(ctx, &cairnv1.DrainNodeRequest{Node: name})
	return heal, err
}

// nodeName is the target's, or one that is drawn where the servers are somebody else's.
func (w *World) nodeName(ctx context.Context, target *local.Server, random *rand.Rand) (string, error) {
	if target != nil {
		return target.Name, nil
	}
	answer, err := w.API.Nodes().ListNodes(ctx, &cairnv1.ListNodesRequest{})
	if err != nil {
		return "", err
	}
	return answer.GetNodes()[random.IntN(len(answer.GetNodes()))].GetName(), nil
}

// partition cuts what the target says to others, or what it hears from them, or both.
func partition(mute, deaf bool) func(context.Context, *World, *local.Server, *rand.Rand) (Heal, error) {
	return func(ctx context.Context, w *World, target *local.Server, _ *rand.Rand) (Heal, error) {
		type wire struct{ from, to string }
		var cut []wire
		heal := func(ctx context.Context) error {
			for len(cut) > 0 {
				if err := w.Network.Pass(ctx, cut[0].from, cut[0].to); err != nil {
					return err
				}
				cut = cut[1:]
			}
			return nil
		}
		for _, other := range w.Cluster.Servers() {
			var wires []wire
			if other != target && mute {
				wires = append(wires, wire{target.Host, other.Host})
			}
			if other != target && deaf {
				wires = append(wires, wire{other.Host, target.Host})
			}
			for _, wire := range wires {
				if err := w.Network.Drop(ctx, wire.from, wire.to); err != nil {
					return heal, err
				}
				cut = append(cut, wire)
			}
		}
		return heal, nil
	}
}

func loss(ctx context.Context, w *World, target *local.Server, random *rand.Rand) (Heal, error) {
	return between(ctx, w, target, w.Network.Lose, 10+random.IntN(31))
}

func latency(ctx context.Context, w *World, target *local.Server, random *rand.Rand) (Heal, error) {
	return between(ctx, w, target, w.Network.Delay, time.Duration(20+random.IntN(481))*time.Millisecond)
}

// between sets something of both ways between the target and every other server; zero ends it.
func between[T any](ctx context.Context, w *World, target *local.Server, set func(ctx context.Context, from, to string, much T) error, much T) (Heal, error) {
	all := func(ctx context.Context, much T) error {
		for _, other := range w.Cluster.Servers() {
			if other == target {
				continue
			}
			if err := errors.Join(set(ctx, target.Host, other.Host, much), set(ctx, other.Host, target.Host, much)); err != nil {
				return err
			}
		}
		return nil
	}
	return func(ctx context.Context) error {
		var zero T
		return all(ctx, zero)
	}, all(ctx, much)
}
