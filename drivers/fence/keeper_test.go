package fence

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/tool"
)

const ttl = 2 * time.Second

// world is a node: a packet filter, a server, a lease, and what the cluster has decided.
type world struct {
	t        *testing.T
	filter   *filter
	keeper   *Keeper
	mu       sync.Mutex
	until    time.Time // of the lease
	exports  map[drivers.ExportID]drivers.ExportSpec
	epochs   map[cairn.ReplicaID]uint64 // as the cluster has decided
	known    map[cairn.ReplicaID]uint64 // as this node knows it
	stuck    bool                       // Unexport does not succeed
	announce int
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, filter: newFilter(), exports: map[drivers.ExportID]drivers.ExportSpec{},
		epochs: map[cairn.ReplicaID]uint64{}, known: map[cairn.ReplicaID]uint64{},
	}
}

// start is a new process: it knows nothing but what is on the node.
func (w *world) start() {
	w.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	keeper, err := NewKeeper(w.t.Context(), Config{
		Exporter: w, Guard: w, Gate: &Gate{Runner: w.filter, Table: "cairn_nfs", Port: 2049},
		Addresses: &Addresses{Runner: w.filter, Announce: func(string, netip.Addr) error { w.announce++; return nil }, Logger: logger},
		Lease:     w.lease, Settle: w.settle, Logger: logger,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.keeper = keeper
}

func (w *world) lease() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Until(w.until)
}

func (w *world) grant() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = time.Now().Add(ttl)
}

func (w *world) settle(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, epoch := range w.epochs {
		w.known[id] = epoch
	}
	return nil
}

func (w *world) Check(id cairn.ReplicaID, epoch uint64) error {
	left := w.lease()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.known[id] != epoch:
		return cairn.ErrStale
	case left <= 0:
		return cairn.ErrUnavailable
	}
	return nil
}

func (w *world) Export(_ context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	if err := w.Check(spec.ID.Replica, spec.Epoch); err != nil && spec.Fenced {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exports[spec.ID] = spec
	return nil, nil
}

func (w *world) Unexport(_ context.Context, id drivers.ExportID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stuck {
		return cairn.ErrTimeout
	}
	delete(w.exports, id)
	return nil
}

func (w *world) Exports(context.Context) ([]drivers.ExportSpec, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []drivers.ExportSpec
	for _, spec := range w.exports {
		all = append(all, spec)
	}
	return all, nil
}

func (w *world) Fence(context.Context, cairn.ReplicaID, uint64) error { return nil }

// fence is what the actors do: it takes away what the guard refuses.
func (w *world) fence() {
	specs, _ := w.Exports(w.t.Context())
	for _, spec := range specs {
		if spec.Fenced && w.Check(spec.ID.Replica, spec.Epoch) != nil {
			_ = w.keeper.Unexport(w.t.Context(), spec.ID)
		}
	}
}

// reachable lists what clients reach and must not: the lease is over, or the cluster has decided otherwise.
func (w *world) wrong() []cairn.ReplicaID {
	if !w.filter.passes() {
		return nil
	}
	left := w.lease()
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []cairn.ReplicaID
	for id, spec := range w.exports {
		if spec.Fenced && (left <= 0 || w.epochs[id.Replica] != spec.Epoch) {
			all = append(all, id.Replica)
		}
	}
	return all
}

func (w *world) active(id cairn.ReplicaID, epoch uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epochs[id], w.known[id] = epoch, epoch
}

var address = netip.MustParsePrefix("10.0.0.9/24")

func share(id cairn.ReplicaID, epoch uint64) drivers.ExportSpec {
	return drivers.ExportSpec{ID: drivers.ExportID{Replica: id}, Share: "s", Epoch: epoch, Fenced: true, Address: address}
}

func (w *world) steps(n int) {
	for range n {
		w.keeper.look(w.t.Context())
		time.Sleep(100 * time.Millisecond) // of the bubble
	}
}

func TestKeeper(t *testing.T) {
	for name, story := range map[string]func(*testing.T, *world){
		"no gate for what needs none": func(t *testing.T, w *world) {
			w.start()
			spec := share("r1", 1)
			spec.Fenced = false
			if _, err := w.keeper.Export(t.Context(), spec); err != nil || len(w.filter.tables) != 0 || w.filter.has("10.0.0.9/24") {
				t.Errorf("%v, tables %v", err, w.filter.tables)
			}
		},
		"without a lease nothing is served": func(t *testing.T, w *world) {
			w.start()
			w.active("r1", 1)
			if _, err := w.keeper.Export(t.Context(), share("r1", 1)); !errors.Is(err, cairn.ErrUnavailable) || len(w.exports) != 0 || !w.filter.passes() {
				t.Errorf("%v, %d exports", err, len(w.exports))
			}
		},
		"renewed under a lease, with the address": func(t *testing.T, w *world) {
			w.start()
			w.active("r1", 1)
			w.grant()
			if _, err := w.keeper.Export(t.Context(), share("r1", 1)); err != nil {
				t.Fatal(err)
			}
			for range 100 {
				w.grant()
				w.steps(1)
				if !w.filter.passes() {
					t.Fatal("closed under a lease")
				}
			}
			if !w.filter.has("10.0.0.9/24") || w.announce != announcements {
				t.Errorf("address %v, %d announcements", w.filter.addrs, w.announce)
			}
			if err := w.keeper.Unexport(t.Context(), share("r1", 1).ID); err != nil || w.filter.has("10.0.0.9/24") {
				t.Errorf("%v, address %v", err, w.filter.addrs)
			}
			w.steps(1)
			if len(w.filter.tables) != 0 {
				t.Errorf("the table stays: %v", w.filter.tables)
			}
		},
		"closed when nobody renews": func(t *testing.T, w *world) {
			w.start()
			w.active("r1", 1)
			w.grant()
			if _, err := w.keeper.Export(t.Context(), share("r1", 1)); err != nil {
				t.Fatal(err)
			}
			w.steps(5)
			time.Sleep(ttl) // the process is stopped
			if w.filter.passes() {
				t.Error("open without a lease")
			}
			w.active("r1", 2) // meanwhile another node was active, and this one is again; it has an old export
			w.grant()
			w.steps(3)
			if w.filter.passes() {
				t.Error("open with an export of an old epoch behind it")
			}
			w.fence()
			w.steps(1)
			if w.keeper.state != absent || !w.filter.passes() {
				t.Errorf("state %d, nothing is served that needs a gate", w.keeper.state)
			}
		},
		"opened again when all is well": func(t *testing.T, w *world) {
			w.start()
			w.active("r1", 1)
			w.grant()
			if _, err := w.keeper.Export(t.Context(), share("r1", 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * ttl)
			w.steps(1)
			if w.keeper.state != closed || w.filter.has("10.0.0.9/24") {
				t.Errorf("state %d, address %v", w.keeper.state, w.filter.addrs)
			}
			w.grant()
			w.steps(1)
			if !w.filter.passes() || !w.filter.has("10.0.0.9/24") {
				t.Errorf("open %t, address %v", w.filter.passes(), w.filter.addrs)
			}
		},
		"a new process finds what the old one served, and closes first": func(t *testing.T, w *world) {
			w.active("r1", 1)
			w.exports[share("r1", 1).ID] = share("r1", 1)
			w.start()
			if w.filter.passes() {
				t.Error("open before anybody knows whose it is")
			}
			w.grant()
			w.steps(1)
			if !w.filter.passes() {
				t.Error("closed although it is this node's")
			}
		},
		"a table that somebody has flushed is made anew": func(t *testing.T, w *world) {
			w.start()
			w.active("r1", 1)
			w.grant()
			if _, err := w.keeper.Export(t.Context(), share("r1", 1)); err != nil {
				t.Fatal(err)
			}
			w.filter.tables = map[string]map[string]map[string]time.Time{}
			for range 10 {
				w.grant()
				w.steps(1)
			}
			if len(w.filter.tables) != 1 || !w.filter.passes() {
				t.Errorf("tables %v, open %t", w.filter.tables, w.filter.passes())
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { story(t, newWorld(t)) })
		})
	}
}

// A command that the kernel gets late, because this process was stopped before it, must open nothing.
func TestLateCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		w.active("r1", 1)
		for _, moment := range []string{"ticket {", "open {", "list table"} {
			w.grant()
			if _, err := w.keeper.Export(t.Context(), share("r1", 1)); err != nil {
				t.Fatal(err)
			}
			w.steps(10)
			w.grant()
			for stop := time.Duration(0); stop < 2*ttl; stop += 97 * time.Millisecond {
				w.filter.before = func(script string) {
					if strings.Contains(script, moment) {
						time.Sleep(stop)
					}
				}
				w.keeper.look(t.Context())
				w.filter.before = func(string) {}
				for range 50 {
					if wrong := w.wrong(); len(wrong) > 0 {
						t.Fatalf("stopped for %s before %q: open after the lease", stop, moment)
					}
					time.Sleep(50 * time.Millisecond)
				}
				w.grant()
				w.steps(10)
				if !w.filter.passes() {
					t.Fatalf("stopped for %s before %q: not open again", stop, moment)
				}
				w.grant()
			}
		}
	})
}

// Random histories of leases, failovers, stops, restarts and calls: nothing is ever reachable that must not be.
func TestNeverReachableWithoutALease(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range uint64(50) {
		synctest.Test(t, func(t *testing.T) { history(t, rand.New(rand.NewPCG(seed, round))) })
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
}

func history(t *testing.T, random *rand.Rand) {
	w := newWorld(t)
	w.start()
	ids := []cairn.ReplicaID{"r1", "r2", "r3"}
	here := func() { // the cluster lets go of what this node had only when its lease is over
		if w.lease() > 0 {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.epochs[ids[random.IntN(len(ids))]]++
	}
	stop := func(string) {
		if random.IntN(8) == 0 {
			time.Sleep(time.Duration(random.Int64N(int64(3 * time.Second))))
		}
	}
	opened := 0
	for range 400 {
		w.filter.before = stop
		switch random.IntN(12) {
		case 0, 1, 2:
			w.grant()
		case 3:
			here()
		case 4:
			w.start()
		case 5, 6:
			id := ids[random.IntN(len(ids))]
			w.mu.Lock()
			epoch := w.known[id] // perhaps an old one
			w.mu.Unlock()
			_, _ = w.keeper.Export(t.Context(), share(id, epoch))
		case 7:
			w.fence()
		case 8:
			w.stuck = random.IntN(2) == 0
		default:
			w.keeper.look(t.Context())
		}
		w.filter.before = func(string) {}
		if wrong := w.wrong(); len(wrong) > 0 {
			t.Fatalf("reachable: %v", slices.Sorted(slices.Values(wrong)))
		}
		if w.filter.passes() && len(w.exports) > 0 {
			opened++
		}
		time.Sleep(time.Duration(random.Int64N(int64(300 * time.Millisecond))))
		if wrong := w.wrong(); len(wrong) > 0 {
			t.Fatalf("reachable: %v", slices.Sorted(slices.Values(wrong)))
		}
	}
	if opened == 0 {
		t.Error("nothing was ever served: the history proves nothing")
	}
}

func TestWithoutAGate(t *testing.T) {
	w := newWorld(t)
	w.exports[share("r1", 1).ID] = share("r1", 1)
	logger := slog.New(slog.DiscardHandler)
	k, err := NewKeeper(t.Context(), Config{
		Exporter: w, Guard: w, Gate: &Gate{Runner: noTools{}, Table: "cairn_nfs", Port: 2049}, Addresses: &Addresses{Runner: noTools{}, Logger: logger},
		Lease: w.lease, Settle: w.settle, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(w.exports) != 0 {
		t.Error("what the last process served behind a gate is still served, without one")
	}
	if _, err := k.Export(t.Context(), share("r1", 1)); !errors.Is(err, cairn.ErrNotSupported) {
		t.Errorf("%v; want cairn.ErrNotSupported", err)
	}
	spec := share("r1", 1)
	spec.Fenced = false
	if _, err := k.Export(t.Context(), spec); err != nil {
		t.Errorf("what needs no gate: %v", err)
	}
}

// TestUnfitForAWhile: what nft could not do when the process began it does later, and then what must be fenced is served.
func TestUnfitForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.exports[share("r1", 1).ID] = share("r1", 1)
		broken := &breaking{filter: w.filter, err: tool.NewExitError(tool.Cmd{Name: "nft"}, 1, nil, []byte("what nobody knows"))}
		logger := slog.New(slog.DiscardHandler)
		k, err := NewKeeper(t.Context(), Config{
			Exporter: w, Guard: w, Gate: &Gate{Runner: broken, Table: "cairn_nfs", Port: 2049}, Addresses: &Addresses{Runner: broken, Logger: logger},
			Lease: w.lease, Settle: w.settle, Logger: logger,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go k.Run(ctx)
		w.epochs["r1"] = 1
		try := func() error {
			w.grant()
			if err := w.settle(ctx); err != nil {
				return err
			}
			_, err := k.Export(ctx, share("r1", 1))
			return err
		}
		if time.Sleep(2 * lookEvery); k.Unfit() == nil || !errors.Is(try(), cairn.ErrNotSupported) || len(w.exports) > 0 {
			t.Errorf("without a gate it is served: %v", w.exports)
		}
		broken.mend()
		select {
		case <-k.Fit():
		case <-time.After(2 * lookEvery):
			t.Fatal("nft works, and the node has not noticed")
		}
		if err := errors.Join(k.Unfit(), try()); err != nil || len(w.exports) != 1 {
			t.Errorf("with a gate it is not served: %v", err)
		}
		if open, err := k.config.Gate.IsOpen(ctx); !open || err != nil {
			t.Errorf("the gate is open: %t, %v", open, err)
		}
	})
}
