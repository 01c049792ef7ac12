package systemtest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
)

// TestPartition cuts the server off that leads the cluster and serves the share, while a client of it goes on writing: what it
// says is lost, or what it is told, or both. Another server takes over, and from its first acknowledged write on the old one
// acknowledges none, also when it is started again, still cut off and with the epoch of before.
func TestPartition(t *testing.T) {
	t.Parallel()
	withNetwork(t, 3, func(t *testing.T, n *network) {
		n.check(n.Start(t.Context(), 3))
		s := n.makeCopied("docs", 3)
		for _, p := range []struct {
			name           string
			mute, deaf     bool // nothing is heard of it; it hears nothing
			restartedAlone bool
		}{
			{name: "mute", mute: true},
			{name: "deaf", deaf: true},
			{name: "cut off and restarted", mute: true, deaf: true, restartedAlone: true},
		} {
			began := time.Now()
			old := s.leads()
			s.write(p.name, "before")
			s.follow()
			client := s.startStale(old)
			n.partition(old, p.mute, p.deaf, n.drop)
			s.writeAway(old, p.name, "after")
			taken := time.Now()
			client.flow(10)
			if p.restartedAlone {
				n.check(old.Kill())
				n.check(old.Start())
				client.flow(40)
			}
			if late := client.end(); late.After(taken) {
				t.Errorf("%s: %s acknowledged a write that began %s after another server had acknowledged one", p.name, old.Name, late.Sub(taken))
			}
			n.partition(old, p.mute, p.deaf, n.pass)
			s.awaitSync(3)
			s.follow()
			s.expect(p.name, "after")
			t.Logf("%s: written elsewhere after %s", p.name, taken.Sub(began).Round(time.Millisecond))
		}
	})
}

func (n *network) partition(s *local.Server, mute, deaf bool, change func(from, to string)) {
	for _, other := range n.Servers() {
		if other != s && mute {
			change(s.Host, other.Host)
		}
		if other != s && deaf {
			change(other.Host, s.Host)
		}
	}
}

// leads promotes the share to the leader and returns that one.
func (s *copied) leads() *local.Server {
	s.t.Helper()
	leader := s.leader()
	if s.host() != leader {
		s.must(nil, "share", "promote", s.name, "--to", leader.Name)
	}
	return leader
}

// writeAway stores a file as soon as another server than old takes it.
func (s *copied) writeAway(old *local.Server, name, content string) {
	s.t.Helper()
	var others []*local.Server
	for _, other := range s.Servers() {
		if other != old {
			others = append(others, other)
		}
	}
	s.await(time.Minute, "a write elsewhere than at "+old.Name, func(ctx context.Context) (bool, error) {
		api, err := s.API(others[0])
		if err != nil {
			return false, err
		}
		share, err := showAt(ctx, api, s.name)
		if err != nil || share.GetReplicas()[0].GetNode() == old.Name || len(share.GetLocations()) == 0 {
			return false, err
		}
		files, err := s.at(share.GetLocations()[0].GetUrl())
		if err != nil {
			return false, err
		}
		defer files.Close()
		err = files.Put(ctx, name, strings.NewReader(content), int64(len(content)))
		return err == nil, err
	})
}

// stale is a client that knows one server only and goes on writing to it, whatever it is answered.
type stale struct {
	files *dav.Client
	stop  chan struct{}
	tried chan struct{}
	group sync.WaitGroup
	late  time.Time // when the newest acknowledged write began
}

func (s *copied) startStale(at *local.Server) *stale {
	s.t.Helper()
	share, err := s.show(s.t.Context())
	s.check(err)
	if share.GetReplicas()[0].GetNode() != at.Name {
		s.t.Fatalf("share %s is not at %s", s.name, at.Name)
	}
	files, err := s.at(share.GetLocations()[0].GetUrl())
	s.check(err)
	c := &stale{files: files, stop: make(chan struct{}), tried: make(chan struct{})}
	c.group.Go(func() { c.run(s.t.Context()) })
	return c
}

func (c *stale) run(ctx context.Context) {
	for {
		began := time.Now()
		if err := c.files.Put(ctx, "split", strings.NewReader("x"), 1); err == nil {
			c.late = began
		}
		select {
		case c.tried <- struct{}{}:
		case <-c.stop:
			return
		case <-time.After(20 * time.Millisecond): // nobody counts; a refused connection must not spin
		}
	}
}

// flow waits for so many attempts.
func (c *stale) flow(attempts int) {
	for range attempts {
		<-c.tried
	}
}

// end stops the client and returns when the newest write began that was acknowledged.
func (c *stale) end() time.Time {
	close(c.stop)
	c.group.Wait()
	c.files.Close()
	return c.late
}
