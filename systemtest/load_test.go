package systemtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

const loadClients = 3

// load is clients that use everything the cluster can do, each with shares of its own, and one that writes files.
type load struct {
	c     *cluster
	api   *client.Client
	docs  share
	stop  chan struct{}
	moved chan struct{}
	group sync.WaitGroup

	mu      sync.Mutex
	done    int               // operations that were answered with yes
	refused int               // with no, for a good reason
	away    int               // that had no answer, or one that leaves the outcome open
	written map[string]string // acknowledged files
}

func startLoad(c *cluster, docs share, seed uint64) *load {
	c.t.Helper()
	cfg, err := c.ClientConfig(c.Servers()...)
	c.check(err)
	api, err := client.Dial(cfg)
	c.check(err)
	l := &load{c: c, api: api, docs: docs, stop: make(chan struct{}), moved: make(chan struct{}), written: map[string]string{}}
	for i := range loadClients {
		random := rand.New(rand.NewPCG(seed, uint64(i+1)))
		l.group.Go(func() { l.repeat(func(n int) { l.useShare(fmt.Sprintf("client%d-%d", i, n), random) }) })
	}
	random := rand.New(rand.NewPCG(seed, loadClients+1))
	l.group.Go(func() { l.repeat(func(n int) { l.copyDocs(n, random) }) })
	l.group.Go(func() { l.repeat(l.writeFile) })
	c.t.Cleanup(func() { _ = api.Close() })
	return l
}

func (l *load) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d operations done, %d refused, %d without a certain answer, %d files written", l.done, l.refused, l.away, len(l.written))
}

func (l *load) repeat(do func(n int)) {
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		default:
			do(n)
		}
	}
}

// flow waits for so many operations.
func (l *load) flow(operations int) {
	for range operations {
		<-l.moved
	}
}

// end stops the clients and returns the files that were acknowledged.
func (l *load) end() map[string]string {
	close(l.stop)
	l.group.Wait()
	return l.written
}

// useShare is the life of one share, in which each step may happen or not.
func (l *load) useShare(name string, random *rand.Rand) {
	mebibytes := func() int64 { return int64(1+random.IntN(8)) << 20 }
	shares, snapshots := l.api.Shares(), l.api.Snapshots()
	l.step(func(ctx context.Context) error {
		_, err := shares.CreateShare(ctx, &cairnv1.CreateShareRequest{Name: name, Size: mebibytes()})
		return err
	})
	for range random.IntN(4) {
		l.step(func(ctx context.Context) error {
			var err error
			switch target := (&cairnv1.AccessTarget{Share: name}); random.IntN(4) {
			case 0:
				_, err = l.api.Access().AllowAccess(ctx, &cairnv1.AllowAccessRequest{Target: target, Kind: "ip", Who: "127.0.0.0/8", Level: "rw"})
			case 1:
				_, err = l.api.Access().DenyAccess(ctx, &cairnv1.DenyAccessRequest{Target: target, Kind: "ip", Who: "127.0.0.0/8"})
			case 2:
				_, err = shares.ResizeShare(ctx, &cairnv1.ResizeShareRequest{Share: name, Size: mebibytes() + 8<<20})
			case 3:
				_, err = snapshots.CreateSnapshot(ctx, &cairnv1.CreateSnapshotRequest{Share: name, Name: "s"})
			}
			return err
		})
	}
	if random.IntN(8) == 0 {
		return // this one stays
	}
	l.step(func(ctx context.Context) error {
		_, err := snapshots.DeleteSnapshot(ctx, &cairnv1.DeleteSnapshotRequest{Share: name, Snapshot: "s"})
		return err
	})
	l.step(func(ctx context.Context) error {
		_, err := shares.DeleteShare(ctx, &cairnv1.DeleteShareRequest{Share: name})
		return err
	})
}

// copyDocs snapshots the share that is being written, and makes a share of the snapshot: both copy all its files, so that kills
// find work in progress.
func (l *load) copyDocs(n int, random *rand.Rand) {
	snapshot, clone := fmt.Sprintf("snapshot-%d", n), fmt.Sprintf("clone-%d", n)
	var id string
	l.step(func(ctx context.Context) error {
		answer, err := l.api.Snapshots().CreateSnapshot(ctx, &cairnv1.CreateSnapshotRequest{Share: l.docs.GetId(), Name: snapshot})
		id = answer.GetSnapshot().GetId()
		return err
	})
	pause(l.c.t.Context(), time.Duration(random.IntN(300))*time.Millisecond)
	l.step(func(ctx context.Context) error {
		_, err := l.api.Shares().CreateShare(ctx, &cairnv1.CreateShareRequest{Name: clone, SourceSnapshot: id})
		return err
	})
	pause(l.c.t.Context(), time.Duration(random.IntN(300))*time.Millisecond)
	l.step(func(ctx context.Context) error {
		_, err := l.api.Shares().DeleteShare(ctx, &cairnv1.DeleteShareRequest{Share: clone})
		return err
	})
	if random.IntN(8) > 0 {
		l.step(func(ctx context.Context) error {
			_, err := l.api.Snapshots().DeleteSnapshot(ctx, &cairnv1.DeleteSnapshotRequest{Snapshot: id})
			return err
		})
	}
}

// writeFile writes a file under a name of its own, so that a write without an answer cannot be mistaken for another one.
func (l *load) writeFile(n int) {
	name := fmt.Sprintf("file-%d", n)
	content := strings.Repeat(name+" ", 100)
	ctx, cancel := context.WithTimeout(l.c.t.Context(), 5*time.Second)
	defer cancel()
	if err := l.docs.files.Put(ctx, name, strings.NewReader(content), int64(len(content))); err != nil {
		return // its server is dead, or starting
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written[name] = content
}

// refusals that a client has to expect which does not wait for what it asked for.
var expected = []error{
	cairn.ErrNotFound, cairn.ErrExists, cairn.ErrBusy, cairn.ErrPrecondition, cairn.ErrInUse, cairn.ErrInvalid,
}

// step does one thing and judges the answer.
func (l *load) step(do func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(l.c.t.Context(), 20*time.Second)
	defer cancel()
	err := do(ctx)
	l.count(err)
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

func (l *load) count(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.done++
	case errors.Is(err, cairn.ErrUnavailable), errors.Is(err, cairn.ErrUnknownOutcome), errors.Is(err, cairn.ErrTimeout):
		l.away++
	default:
		l.refused++
		for _, good := range expected {
			if errors.Is(err, good) {
				return
			}
		}
		l.c.t.Errorf("a client was told: %v", err)
	}
}

// wantedObjects lists what must be on each server's pool: replicas, and their snapshots as replica/snapshots/snapshot. What is
// not available and healthy is an error.
func (c *cluster) wantedObjects(ctx context.Context) (map[string][]string, error) {
	api, err := c.API(c.Servers()[0])
	if err != nil {
		return nil, err
	}
	shares, err := api.Shares().ListShares(ctx, &cairnv1.ListSharesRequest{Project: "*"})
	if err != nil {
		return nil, err
	}
	snapshots, err := api.Snapshots().ListSnapshots(ctx, &cairnv1.ListSnapshotsRequest{Project: "*"})
	if err != nil {
		return nil, err
	}
	want := map[string][]string{}
	homes := map[string]*cairnv1.Replica{} // by share
	for _, s := range shares.GetShares() {
		if s.GetManilaStatus() != "available" || s.GetFault() != nil || len(s.GetReplicas()) != 1 || !s.GetReplicas()[0].GetSettled() {
			return nil, fmt.Errorf("share %s is %s (%v)", s.GetName(), s.GetManilaStatus(), s.GetFault())
		}
		replica := s.GetReplicas()[0]
		homes[s.GetId()] = replica
		want[replica.GetNode()] = append(want[replica.GetNode()], replica.GetId())
	}
	for _, s := range snapshots.GetSnapshots() {
		home, ok := homes[s.GetShare()]
		if s.GetStatus() != "available" || s.GetFault() != nil || !ok {
			return nil, fmt.Errorf("snapshot %s/%s is %s (%v)", s.GetShareName(), s.GetName(), s.GetStatus(), s.GetFault())
		}
		want[home.GetNode()] = append(want[home.GetNode()], path.Join(home.GetId(), "snapshots", s.GetId()))
	}
	return want, nil
}
