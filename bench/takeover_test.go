package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// takeovers is how many nodes are killed; CAIRN_BENCH_TAKEOVERS says otherwise. What is promised is promised of 50.
func takeovers() int {
	if n, err := strconv.Atoi(os.Getenv("CAIRN_BENCH_TAKEOVERS")); err == nil && n > 0 {
		return n
	}
	return 3
}

// replicated is a share on three real servers with the timing that they have by default.
type replicated struct {
	*local.Cluster
	b        *testing.B
	password string
}

func newReplicated(b *testing.B) *replicated {
	b.Helper()
	s := newServers(b, "10GiB")
	api := s.api(s.Servers()[0])
	_, err := api.Shares().CreateShare(b.Context(), &cairnv1.CreateShareRequest{Name: "bench", Size: 1 << 30, Type: "copies", Replicas: 3})
	s.check(err)
	access, err := api.Access().AllowAccess(b.Context(), &cairnv1.AllowAccessRequest{
		Target: &cairnv1.AccessTarget{Share: "bench"}, Kind: "user", Who: "bench", Level: "rw",
	})
	s.check(err)
	s.password = access.GetPassword().GetPassword()
	return s
}

// newServers runs three servers that know a type whose shares fail over by themselves.
func newServers(b *testing.B, poolSize string) *replicated {
	b.Helper()
	dir := b.TempDir()
	binary := filepath.Join(dir, "cairn")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/cairn").CombinedOutput(); err != nil {
		b.Fatalf("build of cairn: %v\n%s", err, out)
	}
	c, err := local.New(local.Config{Dir: dir, Executable: binary, PoolSize: poolSize})
	s := &replicated{Cluster: c, b: b}
	s.check(err)
	b.Cleanup(func() { s.check(c.Close()) })
	s.check(c.Start(b.Context(), 3))
	_, err = s.api(c.Servers()[0]).Types().CreateType(b.Context(), &cairnv1.CreateTypeRequest{Type: &cairnv1.ShareType{
		Name: "copies", Format: "files", Specs: map[string]string{"replication_type": "dr", "failover": "auto"},
	}})
	s.check(err)
	return s
}

func (s *replicated) check(err error) {
	s.b.Helper()
	if err != nil {
		s.b.Fatal(err)
	}
}

func (s *replicated) api(server *local.Server) *client.Client {
	s.b.Helper()
	api, err := s.API(server)
	s.check(err)
	return api
}

// inSync waits until nothing is left to do, and returns the active replica's server and another one.
func (s *replicated) inSync() (active, other *local.Server) {
	s.b.Helper()
	s.check(local.Await(s.b.Context(), "three replicas in sync", func(ctx context.Context) (bool, error) {
		answer, err := s.api(s.Servers()[0]).Shares().GetShare(ctx, &cairnv1.GetShareRequest{Share: "bench"})
		replicas := answer.GetShare().GetReplicas()
		for _, r := range replicas {
			if r.GetState() == "out_of_sync" || !r.GetSettled() {
				return false, fmt.Errorf("%s is %s: %s", r.GetNode(), r.GetState(), r.GetFault().GetMessage())
			}
		}
		if len(replicas) == 3 {
			active, other = s.Server(replicas[0].GetNode()), s.Server(replicas[1].GetNode())
		}
		return len(replicas) == 3 && len(answer.GetShare().GetLocations()) > 0, err
	}))
	return active, other
}

// writable returns when the first write was answered at another server than old, as known to the server that is asked.
func (s *replicated) writable(asked, old *local.Server) time.Time {
	s.b.Helper()
	ca, err := s.CA()
	s.check(err)
	ctx, cancel := context.WithTimeout(s.b.Context(), time.Minute)
	defer cancel()
	last := errors.New("the share did not move")
	for ; ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
		answer, err := s.api(asked).Shares().GetShare(ctx, &cairnv1.GetShareRequest{Share: "bench", Read: &cairnv1.Read{Stale: true}})
		share := answer.GetShare()
		if err != nil || share.GetReplicas()[0].GetNode() == old.Name || len(share.GetLocations()) == 0 {
			continue
		}
		files, err := dav.New(dav.Config{
			URL: share.GetLocations()[0].GetUrl(), CA: ca, User: "bench", Password: s.password, Connections: 1, Timeout: 500 * time.Millisecond,
		})
		s.check(err)
		last = files.Put(ctx, "record", strings.NewReader("x"), 1)
		files.Close()
		if last == nil {
			return time.Now()
		}
	}
	s.b.Fatalf("not writable anywhere: %v", last)
	return time.Time{}
}

// phases is how long a takeover took, from the kill on.
type phases struct {
	down, decided, promoted, writable time.Duration
}

func (s *replicated) takeover() phases {
	s.b.Helper()
	old, asked := s.inSync()
	began := time.Now()
	s.check(old.Kill())
	p := phases{writable: s.writable(asked, old).Sub(began)}
	events, err := s.api(asked).Events().ListEvents(s.b.Context(), &cairnv1.ListEventsRequest{
		Project: "*", Since: began.UTC().Format(time.RFC3339Nano), Read: &cairnv1.Read{Stale: true},
	})
	s.check(err)
	for _, event := range events.GetEvents() {
		at, err := time.Parse(time.RFC3339Nano, event.GetAt())
		s.check(err)
		switch event.GetKind() { // all of them are clocks of this machine
		case "node.down":
			p.down = at.Sub(began)
		case "share.failover":
			p.decided = at.Sub(began)
		case "share.taken_over":
			p.promoted = at.Sub(began)
		}
	}
	s.check(s.Revive(s.b.Context(), old))
	return p
}

// takeover kills the node of the active replica of a share until it can be written elsewhere, and promotes it when it is idle.
func (r *report) takeover(b *testing.B) {
	s := newReplicated(b)
	var all []phases
	for range takeovers() {
		all = append(all, s.takeover())
	}
	part := func(of func(phases) time.Duration) string {
		p50, p99 := percentiles(all, of)
		return fmt.Sprintf("%v, %v", p50.Round(time.Millisecond), p99.Round(time.Millisecond))
	}
	lease := cluster.DefaultTiming().Lease
	p50, p99 := percentiles(all, func(p phases) time.Duration { return p.writable })
	r.result(row{
		what: fmt.Sprintf("kill -9 of the active replica's node to a write elsewhere, p50 and p99 of %d", len(all)), value: fmt.Sprintf("%v, %v", p50.Round(time.Millisecond), p99.Round(time.Millisecond)),
		limit: fmt.Sprintf("lease and margin: %v", lease.TTL+lease.Margin), target: "p99 at most 5 s", met: p99 <= 5*time.Second,
	})
	r.probe("  until its lease was certainly over and it was committed as down", part(func(p phases) time.Duration { return p.down }))
	r.probe("  to ask the standbys and commit the failover", part(func(p phases) time.Duration { return p.decided - p.down }))
	r.probe("  to make the standby's data the sync point's", part(func(p phases) time.Duration { return p.promoted - p.decided }))
	r.probe("  to export it, and for the client to find it", part(func(p phases) time.Duration { return p.writable - p.promoted }))
	moved := s.promotions(5)
	r.result(row{
		what: "planned promotion of an idle share to a write at its new place, median of 5", value: moved.Round(time.Millisecond).String(),
		target: "less than 1 s", met: moved < time.Second,
	})
	once(b, map[string]float64{"p50-ms": float64(p50.Milliseconds()), "p99-ms": float64(p99.Milliseconds()), "promote-ms": float64(moved.Milliseconds())})
}

func percentiles(all []phases, of func(phases) time.Duration) (p50, p99 time.Duration) {
	var took []time.Duration
	for _, p := range all {
		took = append(took, of(p))
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}

// promotions is the median of the times that planned promotions took.
func (s *replicated) promotions(n int) time.Duration {
	s.b.Helper()
	var took []time.Duration
	for range n {
		old, _ := s.inSync()
		began := time.Now()
		_, err := s.api(old).Replicas().PromoteShare(s.b.Context(), &cairnv1.PromoteShareRequest{Share: "bench"})
		s.check(err)
		took = append(took, s.writable(old, old).Sub(began))
	}
	slices.Sort(took)
	return took[n/2]
}
