package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/model"
	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// Config says what clients there are.
type Config struct {
	API      client.Config // all nodes
	Prefix   string        // begins the name of everything that is made
	Seed     uint64
	Slots    int           // projects with a few unreplicated shares; two clients each
	Shares   int           // that records are written to; two writers each
	Replicas int           // of those; 1 or more
	Zone     string        // where the unreplicated shares are; "" is anywhere
	Sources  []string      // addresses that this machine can connect from, for access rules
	NFS      *NFS          // one more share, over NFS; nil: none
	Pause    time.Duration // of a client between two operations, in the mean
}

// NFS is where a share over NFS is reached.
type NFS struct {
	Client  string   // the address of this machine that servers see
	Service string   // of the share, wherever it is served; with the length of its network
	Nodes   []string // of the nodes themselves
}

// Traffic is the clients and what they have made.
type Traffic struct {
	*Record
	config   Config
	shares   []*Share
	rules    string // the share whose access rules are changed
	keepers  []*keeper
	watchers []*watcher
	runs     []func(ctx context.Context)
	apis     []*client.Client
	doors    []Door

	stop  context.CancelFunc
	group sync.WaitGroup
}

// New makes the shares, and the clients for them, which do nothing yet. What it made it also removes if it fails.
func New(ctx context.Context, cfg Config) (*Traffic, error) {
	t := &Traffic{Record: NewRecord(), config: cfg}
	if err := t.prepare(ctx); err != nil {
		if len(t.apis) > 0 {
			err = errors.Join(err, t.Remove(context.WithoutCancel(ctx)))
		}
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Traffic) prepare(ctx context.Context) error {
	admin, err := t.dial(t.config.API)
	if err != nil {
		return err
	}
	if err := t.makeShares(ctx, admin); err != nil {
		return err
	}
	for i := range t.config.Slots {
		for range 2 {
			a, err := t.actor()
			if err != nil {
				return err
			}
			s := &slot{actor: a, project: fmt.Sprintf("%s-slot-%d", t.config.Prefix, i), zone: t.config.Zone, known: map[string]string{}, cuts: map[string]snapshots{}}
			t.runs = append(t.runs, s.run)
		}
	}
	for i := range 2 {
		if err := t.addSets(i == 0); err != nil {
			return err
		}
		if err := t.addWatcher(ctx, admin); err != nil {
			return err
		}
	}
	return t.addWriters(ctx)
}

func (t *Traffic) addSets(first bool) error {
	for _, make := range []func(a *actor) func(context.Context){
		func(a *actor) func(context.Context) { return a.types(t.config.Prefix) },
		func(a *actor) func(context.Context) { return a.quotas(t.quota()) },
		func(a *actor) func(context.Context) { return a.tokens(t.config.Prefix + "-nobody") },
		func(a *actor) func(context.Context) {
			return a.rules(t.rules, t.config.Sources, first)
		},
	} {
		a, err := t.actor()
		if err != nil {
			return err
		}
		turn := make(&a)
		t.runs = append(t.runs, func(ctx context.Context) { a.turns(ctx, turn) })
	}
	return nil
}

func (t *Traffic) addWatcher(ctx context.Context, admin *client.Client) error {
	a, err := t.actor()
	if err != nil {
		return err
	}
	answer, err := admin.Events().ListEvents(ctx, &cairnv1.ListEventsRequest{Project: "*", PageSize: 1})
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	w := &watcher{actor: a, seen: answer.GetNewest(), stream: model.Stream{Watcher: fmt.Sprintf("watcher %d", a.number), After: answer.GetNewest()}}
	t.watchers, t.runs = append(t.watchers, w), append(t.runs, w.run)
	return nil
}

func (t *Traffic) addWriters(ctx context.Context) error {
	for _, share := range t.shares {
		for second := range 2 {
			a, err := t.actor()
			if err != nil {
				return err
			}
			w := &writer{actor: a, share: share}
			if share.Protocol == cairn.ProtocolNFS && second == 1 {
				w.doors = t.sideDoors(share)
			} else if w.doors, err = t.Doors(ctx, share); err != nil {
				return err
			}
			t.runs = append(t.runs, func(ctx context.Context) { w.turns(ctx, w.turn) })
		}
		a, err := t.actor()
		if err != nil {
			return err
		}
		a.pause *= 10
		k := &keeper{actor: a, share: share, replicas: t.config.Replicas}
		t.keepers, t.runs = append(t.keepers, k), append(t.runs, func(ctx context.Context) { k.turns(ctx, k.turn) })
	}
	return nil
}

// actor makes the next client. Every other one has one node only, so that what this one says is heard also when it is cut off.
func (t *Traffic) actor() (actor, error) {
	number := len(t.apis)
	cfg := t.config.API
	if number%2 == 1 {
		cfg.Addresses = cfg.Addresses[number/2%len(cfg.Addresses):][:1]
	}
	api, err := t.dial(cfg)
	return actor{
		Record: t.Record, api: api, number: number, random: rand.New(rand.NewPCG(t.config.Seed, uint64(number))), pause: t.config.Pause,
	}, err
}

func (t *Traffic) dial(cfg client.Config) (*client.Client, error) {
	api, err := client.Dial(cfg)
	if err == nil {
		t.apis = append(t.apis, api)
	}
	return api, err
}

// Start lets the clients go.
func (t *Traffic) Start(ctx context.Context) {
	ctx, t.stop = context.WithCancel(ctx)
	for _, run := range t.runs {
		t.group.Go(func() { run(ctx) })
	}
}

// Stop ends the clients. What was under way has an outcome that is not known.
func (t *Traffic) Stop() {
	t.stop()
	t.group.Wait()
}

// Streams lets the watchers see what they have not seen yet, and returns what they saw.
func (t *Traffic) Streams(ctx context.Context) ([]model.Stream, error) {
	var streams []model.Stream
	for _, w := range t.watchers {
		if err := w.finish(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", w.stream.Watcher, err)
		}
		streams = append(streams, w.stream)
	}
	return streams, nil
}

// Shares are those that records were written to.
func (t *Traffic) Shares() []*Share { return t.shares }

// Rules is the ID of the share whose access rules were changed.
func (t *Traffic) Rules() string { return t.rules }

// Sources are the addresses that access rules were about.
func (t *Traffic) Sources() []string { return t.config.Sources }

// Cuts are the names of the snapshots of a share that were said to be available, and that nobody wanted to be deleted.
func (t *Traffic) Cuts(share *Share) []string {
	for _, k := range t.keepers {
		if k.share == share {
			return k.cuts
		}
	}
	return nil
}

// API is the administrator's connection to all nodes.
func (t *Traffic) API() *client.Client { return t.apis[0] }

// Close ends all connections.
func (t *Traffic) Close() error {
	var errs []error
	for _, api := range t.apis {
		errs = append(errs, api.Close())
	}
	for _, door := range t.doors {
		door.Close()
	}
	return errors.Join(errs...)
}
