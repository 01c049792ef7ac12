package systemtest

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// copied is a share with replicas, and a user who may write it wherever it is served.
type copied struct {
	*cluster
	name     string
	password string
}

// makeCopied creates a share with as many replicas that are all in sync.
func (c *cluster) makeCopied(name string, replicas int) *copied {
	c.t.Helper()
	return c.makeCopiedBy("auto", "300ms", name, "1GiB", replicas)
}

// makeCopiedBy is makeCopied with another failover policy, interval of replication and size.
func (c *cluster) makeCopiedBy(failover, interval, name, size string, replicas int) *copied {
	c.t.Helper()
	return c.makeCopiedOf("dr", failover, interval, name, size, replicas)
}

// makeCopiedOf is makeCopiedBy with another type of replication.
func (c *cluster) makeCopiedOf(replication, failover, interval, name, size string, replicas int) *copied {
	c.t.Helper()
	c.must(nil, "type", "create", "copies", "--spec", "replication_type="+replication, "--spec", "failover="+failover, "--spec", "snapshot_support=true",
		"--spec", "create_share_from_snapshot_support=true", "--spec", "revert_to_snapshot_support=true", "--spec", "cairn:replication_interval="+interval)
	c.must(nil, "share", "create", name, "--size", size, "--type", "copies", "--replicas", fmt.Sprint(replicas))
	var access cairnv1.AllowAccessResponse
	c.must(&access, "access", "allow", name, "user", "tester", "rw")
	s := &copied{c, name, access.GetPassword().GetPassword()}
	s.awaitSync(replicas)
	return s
}

// awaitSync waits until the share has so many replicas that are active or in sync.
func (s *copied) awaitSync(replicas int) {
	s.t.Helper()
	s.await(30*time.Second, "all replicas in sync", func(ctx context.Context) (bool, error) {
		good, states := 0, []string{}
		share, err := s.show(ctx)
		for _, r := range share.GetReplicas() {
			states = append(states, r.GetNode()+" "+r.GetState()+" "+r.GetFault().GetMessage())
			if r.GetState() != "out_of_sync" {
				good++
			}
		}
		if good != replicas && err == nil {
			err = fmt.Errorf("%s", strings.Join(states, ", "))
		}
		return good == replicas, err
	})
}

func (s *copied) show(ctx context.Context) (*cairnv1.Share, error) {
	api, err := s.API()
	if err != nil {
		return nil, err
	}
	return showAt(ctx, api, s.name)
}

// showAt asks one server.
func showAt(ctx context.Context, api *client.Client, share string) (*cairnv1.Share, error) {
	answer, err := api.Shares().GetShare(ctx, &cairnv1.GetShareRequest{Share: share})
	return answer.GetShare(), err
}

// host is the server of the active replica.
func (s *copied) host() *local.Server {
	s.t.Helper()
	share, err := s.show(s.t.Context())
	s.check(err)
	return s.Server(share.GetReplicas()[0].GetNode())
}

// files reaches the share where it is served now.
func (s *copied) files(ctx context.Context) (*dav.Client, error) {
	share, err := s.show(ctx)
	if err != nil {
		return nil, err
	}
	if len(share.GetLocations()) == 0 {
		return nil, fmt.Errorf("share %s is served nowhere", s.name)
	}
	return s.at(share.GetLocations()[0].GetUrl())
}

func (s *copied) at(url string) (*dav.Client, error) {
	ca, err := s.CA()
	if err != nil {
		return nil, err
	}
	return dav.New(dav.Config{URL: url, CA: ca, User: "tester", Password: s.password, Connections: 2, Timeout: 2 * time.Second})
}

// write stores a file, at the first place that takes it.
func (s *copied) write(name, content string) time.Duration {
	s.t.Helper()
	began := time.Now()
	s.await(30*time.Second, "a write of "+name, func(ctx context.Context) (bool, error) {
		files, err := s.files(ctx)
		if err != nil {
			return false, err
		}
		defer files.Close()
		err = files.Put(ctx, name, strings.NewReader(content), int64(len(content)))
		return err == nil, err
	})
	return time.Since(began)
}

// expect reads a file where the share is served.
func (s *copied) expect(name, content string) {
	s.t.Helper()
	files, err := s.files(s.t.Context())
	s.check(err)
	defer files.Close()
	if got, err := read(s.t.Context(), files, name); err != nil || string(got) != content {
		s.t.Errorf("%s reads %q (%v), want %q", name, got, err, content)
	}
}

// follow waits until the standbys have everything that was written before: what they are told to lack may be older than that,
// the time at which they certainly lacked nothing may not.
func (s *copied) follow() {
	s.t.Helper()
	began := time.Now()
	s.await(20*time.Second, "standbys without lag", func(ctx context.Context) (bool, error) {
		api, err := s.API()
		if err != nil {
			return false, err
		}
		answer, err := api.Replicas().ListReplicas(ctx, &cairnv1.ListReplicasRequest{Share: s.name})
		for _, r := range answer.GetReplicas() {
			state, lag := r.GetReplica().GetState(), time.Duration(r.GetLagMs())*time.Millisecond
			if state == "in_sync" && (lag < 0 || lag > time.Since(began) || r.GetLagBytes() != 0) {
				return false, fmt.Errorf("%v", r)
			}
		}
		return err == nil, err
	})
}

// TestPromoteAndFailover moves a share around by promotions and by kill -9 of its node. What was synced is there, what was not is
// kept by the old node, and that one comes back by itself.
func TestPromoteAndFailover(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	s := c.makeCopied("docs", 3)
	s.write("planned", "one")
	for range 3 { // around, from wherever it is
		from := s.host().Name
		s.must(nil, "share", "promote", "docs")
		if s.host().Name == from {
			t.Fatalf("the share did not leave %s", from)
		}
		s.expect("planned", "one")
		s.write("planned", "one")
	}
	s.write("synced", "two")
	s.follow()
	old := s.host()
	s.check(old.Kill())
	took := s.write("after", "three")
	t.Logf("kill -9 of the active replica's node to the next write: %s", took.Round(time.Millisecond))
	if s.host().Name == old.Name {
		t.Error("the share is still at the node that was killed")
	}
	s.expect("synced", "two")
	s.check(old.Start())
	s.awaitSync(3)
	s.follow()
	s.must(nil, "share", "promote", "docs", "--to", old.Name)
	s.expect("after", "three")
}

// TestStoppedActive stops the active replica's server for longer than its lease. When it goes on another node has taken over: what
// comes to its URL is refused, or goes to that one.
func TestStoppedActive(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	s := c.makeCopied("docs", 2)
	s.write("synced", "one")
	s.follow()
	old := s.host()
	share, err := s.show(t.Context())
	s.check(err)
	stale, err := s.at(share.GetLocations()[0].GetUrl())
	s.check(err)
	defer stale.Close()
	s.check(old.Signal(syscall.SIGSTOP))
	s.write("elsewhere", "two")
	s.check(old.Signal(syscall.SIGCONT))
	var taken []string
	for i := range 20 {
		name := fmt.Sprint("late-", i)
		if stale.Put(t.Context(), name, strings.NewReader("x"), 1) == nil {
			taken = append(taken, name)
		}
	}
	s.expect("elsewhere", "two")
	for _, name := range taken {
		s.expect(name, "x") // or it went to the old replica
	}
	s.awaitSync(2)
}

// TestDrainPromotes: a node that drains gives its active replicas away, and can be left then.
func TestDrainPromotes(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	s := c.makeCopied("docs", 2)
	s.write("file", "one")
	host := s.host()
	s.must(nil, "node", "drain", host.Name)
	s.await(30*time.Second, "the share away from the node that drains", func(ctx context.Context) (bool, error) {
		share, err := s.show(ctx)
		return err == nil && share.GetReplicas()[0].GetNode() != host.Name && share.GetTask().GetState() == "succeeded", err
	})
	s.expect("file", "one")
}
