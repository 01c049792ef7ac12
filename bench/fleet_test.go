package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-storage/cairn/chaos/local"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// fleetSize is how many shares fail over together; CAIRN_BENCH_FLEET says otherwise. What is promised is promised of 1000.
func fleetSize() int {
	if n, err := strconv.Atoi(os.Getenv("CAIRN_BENCH_FLEET")); err == nil && n > 0 {
		return n
	}
	return 1000
}

// fleetClients is how many clients write, each to one share after another. On a machine with two processors, one for each share
// would measure themselves.
const fleetClients = 64

// fleet is many shares with two copies, the active ones on the first of three servers.
type fleet struct {
	*replicated
	ids, passwords []string
}

func newFleet(b *testing.B, n int) *fleet {
	b.Helper()
	f := &fleet{replicated: newServers(b, "30GiB"), ids: make([]string, n), passwords: make([]string, n)}
	// Placement prefers the emptiest pool, and only then the node that leads least.
	for _, other := range f.Servers()[1:] {
		_, err := f.api(other).Shares().CreateShare(b.Context(), &cairnv1.CreateShareRequest{Name: "ballast-" + other.Name, Size: 20 << 30, Zone: other.Zone()})
		f.check(err)
	}
	api, err := f.API() // whoever leads
	f.check(err)
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(fleetClients)
	for i := range n {
		group.Go(func() error {
			made, err := api.Shares().CreateShare(ctx, &cairnv1.CreateShareRequest{Name: fmt.Sprint("fleet-", i), Size: 1 << 20, Type: "copies", Replicas: 2})
			if err != nil {
				return err
			}
			f.ids[i] = made.GetShare().GetId()
			access, err := api.Access().AllowAccess(ctx, &cairnv1.AllowAccessRequest{
				Target: &cairnv1.AccessTarget{Share: f.ids[i]}, Kind: "user", Who: "bench", Level: "rw",
			})
			f.passwords[i] = access.GetPassword().GetPassword()
			return err
		})
	}
	f.check(group.Wait())
	return f
}

// settled waits until every share has its active replica on the first server and another one in sync.
func (f *fleet) settled(n int) {
	f.b.Helper()
	first := f.Servers()[0]
	f.check(local.Await(f.b.Context(), "all shares in sync", func(ctx context.Context) (bool, error) {
		seen := 0
		for page := ""; ; {
			answer, err := f.api(first).Shares().ListShares(ctx, &cairnv1.ListSharesRequest{PageToken: page, Read: &cairnv1.Read{Stale: true}})
			if err != nil {
				return false, err
			}
			for _, share := range answer.GetShares() {
				if !strings.HasPrefix(share.GetName(), "fleet-") {
					continue
				}
				if active := share.GetReplicas()[0]; active.GetNode() != first.Name {
					return false, local.Fatal(fmt.Errorf("share %s has its active replica on %s", share.GetName(), active.GetNode()))
				}
				for _, r := range share.GetReplicas() {
					if r.GetState() == "out_of_sync" || !r.GetSettled() {
						return false, fmt.Errorf("after %d others, share %s on %s is %s: %s", seen, share.GetName(), r.GetNode(), r.GetState(), r.GetFault().GetMessage())
					}
				}
				seen++
			}
			if page = answer.GetNextPageToken(); page == "" {
				return seen == n, nil
			}
		}
	}))
}

// web is a client that trusts the cluster.
func (s *replicated) web() *http.Client {
	s.b.Helper()
	ca, err := s.CA()
	s.check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, MaxIdleConnsPerHost: fleetClients},
		Timeout:   time.Minute,
	}
}

// write returns how long after began every share had been written to, through a server that has none of the active replicas
// yet: requests wait there for the share, as those of any client do.
func (f *fleet) write(began time.Time, through *local.Server) []time.Duration {
	f.b.Helper()
	files := f.web()
	defer files.CloseIdleConnections()
	took := make([]time.Duration, len(f.ids))
	group, ctx := errgroup.WithContext(f.b.Context())
	group.SetLimit(fleetClients)
	for i, id := range f.ids {
		group.Go(func() (err error) {
			for time.Since(began) < 5*time.Minute {
				if err = put(ctx, files, "https://"+through.HTTPAddress()+"/shares/"+id+"/record", f.passwords[i]); err == nil {
					took[i] = time.Since(began)
					return nil
				}
			}
			return fmt.Errorf("share %s: not writable anywhere: %w", id, err)
		})
	}
	f.check(group.Wait())
	return took
}

// put writes one byte.
func put(ctx context.Context, files *http.Client, url, password string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, url, strings.NewReader("x"))
	if err != nil {
		return err
	}
	request.SetBasicAuth("bench", password)
	answer, err := files.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err == nil && answer.StatusCode >= 300 {
		err = errors.New(answer.Status)
	}
	return err
}

// fleet kills a node with many active replicas until all of them can be written elsewhere.
func (r *report) fleet(b *testing.B) {
	n := fleetSize()
	began := time.Now()
	f := newFleet(b, n)
	f.settled(n)
	made := time.Since(began)
	old, asked := f.Servers()[0], f.Servers()[1]
	began = time.Now()
	sound := slices.Max(f.write(began, asked))
	f.settled(n)
	began = time.Now()
	f.check(old.Kill())
	took := f.write(began, asked)
	all, half := slices.Max(took), slices.Sorted(slices.Values(took))[n/2]
	down, decided, promoted := f.milestones(asked, began)
	r.result(row{
		what: fmt.Sprintf("kill -9 of a node with %d active replicas to a write to each elsewhere; half of them", n), value: fmt.Sprintf("%v; %v", all.Round(time.Millisecond), half.Round(time.Millisecond)),
		target: "at most 15 s", met: all <= 15*time.Second,
	})
	r.probe("  until it was committed as down; the last failover; the last standby has taken over", fmt.Sprintf("%v; %v; %v", down, decided, promoted))
	r.probe("  to write to each while nothing is wrong, in the same way", sound.Round(time.Millisecond).String())
	r.probe(fmt.Sprintf("  to make %d shares of two copies, all in sync", n), made.Round(time.Second).String())
	once(b, map[string]float64{"all-ms": float64(all.Milliseconds()), "half-ms": float64(half.Milliseconds())})
}

// milestones are when the node was down, the last share had failed over, and the last one had been taken over, as events say.
func (f *fleet) milestones(asked *local.Server, began time.Time) (down, decided, promoted time.Duration) {
	f.b.Helper()
	for after, more := uint64(0), true; more; {
		events, err := f.api(asked).Events().ListEvents(f.b.Context(), &cairnv1.ListEventsRequest{
			Project: "*", Since: began.UTC().Format(time.RFC3339Nano), After: after, Read: &cairnv1.Read{Stale: true},
		})
		f.check(err)
		more = len(events.GetEvents()) > 0
		for _, event := range events.GetEvents() {
			after = event.GetSeq()
			at, err := time.Parse(time.RFC3339Nano, event.GetAt())
			f.check(err)
			took := at.Sub(began).Round(time.Millisecond)
			switch event.GetKind() {
			case "node.down":
				down = took
			case "share.failover":
				decided = max(decided, took)
			case "share.taken_over":
				promoted = max(promoted, took)
			}
		}
	}
	return down, decided, promoted
}
