package systemtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// TestDivergedIsKept: what the old active replica alone has is explained while nobody may take over, and afterwards listed, copied
// to a share of its own, and discarded.
func TestDivergedIsKept(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	s := c.makeCopiedBy("manual", "1h", "docs", "1GiB", 2) // nothing is synced by itself
	old := s.host()
	s.write("alone", "only on "+old.Name)
	s.check(old.Kill())
	s.await(30*time.Second, "an explanation", func(ctx context.Context) (bool, error) {
		api, err := s.API()
		if err != nil {
			return false, err
		}
		why, err := api.Cluster().Why(ctx, &cairnv1.WhyRequest{Resource: "share/docs"})
		return why.GetSummary() == "share docs waits for a failover: an operator, as its type says", err
	})
	s.must(nil, "share", "promote", "docs", "--force", "--yes")
	s.check(old.Start())
	var name string
	s.await(60*time.Second, "a diverged snapshot", func(ctx context.Context) (bool, error) {
		diverged, err := s.diverged(ctx)
		if len(diverged) != 1 {
			return false, fmt.Errorf("diverged snapshots %v: %w", diverged, err)
		}
		name = diverged[0].GetName()
		return err == nil, err
	})
	s.awaitSync(2)
	var copied cairnv1.Share
	s.must(&copied, "share", "create", "rescued", "--from-snapshot", "docs/"+name, "--type", "copies")
	s.must(nil, "access", "allow", "rescued", "ip", "127.0.0.0/8", "rw")
	files := s.reach(copied.GetLocations(), "", "")
	if got, err := read(t.Context(), files, "alone"); err != nil || string(got) != "only on "+old.Name {
		t.Errorf("the copy reads %q (%v)", got, err)
	}
	s.must(nil, "share", "delete", "rescued", "--yes")
	s.must(nil, "snapshot", "delete", "docs", name)
	if diverged, err := s.diverged(t.Context()); err != nil || len(diverged) != 0 {
		t.Errorf("after it was deleted %v are listed (%v)", diverged, err)
	}
}

func (s *copied) diverged(ctx context.Context) ([]*cairnv1.Snapshot, error) {
	api, err := s.API()
	if err != nil {
		return nil, err
	}
	answer, err := api.Replicas().ListReplicas(ctx, &cairnv1.ListReplicasRequest{Share: s.name})
	return answer.GetDiverged(), err
}
