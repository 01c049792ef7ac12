package cluster_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/cluster/clustertest"
	"github.com/cairn-storage/cairn/cluster/identity"
)

func TestTransferLeadership(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 4) // three vote
	leader := c.Leader()
	var heir, standby cairn.NodeID
	for _, m := range leader.Status().Members {
		switch {
		case m.Node.ID == leader.Identity().Node:
		case m.Votes:
			heir = m.Node.ID
		default:
			standby = m.Node.ID
		}
	}
	for name, test := range map[string]struct {
		to   cairn.NodeID
		want error
	}{
		"itself":         {leader.Identity().Node, cairn.ErrPrecondition},
		"without a vote": {standby, cairn.ErrPrecondition},
		"a stranger":     {"x", cairn.ErrNotFound},
	} {
		if err := leader.TransferLeadership(t.Context(), test.to); !errors.Is(err, test.want) {
			t.Errorf("to %s: %v, want %v", name, err, test.want)
		}
	}
	if err := leader.TransferLeadership(t.Context(), heir); err != nil {
		t.Fatal(err)
	}
	c.WaitFor("the heir leads and writes", func() bool {
		next := c.FindLeader()
		return next != nil && next.Identity().Node == heir && clustertest.Write(t.Context(), next, "x") == nil
	})
	if err := leader.TransferLeadership(t.Context(), ""); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("at a node that does not lead: %v", err)
	}
}

// TestIssueUser: the certificate speaks for the user whose row names its serial, and a repeated request gets the same serial.
func TestIssueUser(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 3)
	leader := c.Leader()
	csr, _, err := identity.NewRequest(nil)
	if err != nil {
		t.Fatal(err)
	}
	meta := clustertest.Meta()
	meta.Token = "00000000-0000-4000-8000-000000000002"
	for range 2 {
		text, err := leader.IssueUser(t.Context(), meta, "alice", cairn.UserMember, "default", csr, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if subject, err := identity.SubjectOf(certificate); err != nil || subject.String() != "user/alice" {
			t.Errorf("subject %v, %v", subject, err)
		}
		if row := leader.View().User("alice"); row == nil || row.Serial != identity.Serial(certificate) {
			t.Errorf("row %+v, certificate %s", row, identity.Serial(certificate))
		}
		if _, err := certificate.Verify(x509.VerifyOptions{
			Roots: leader.Identity().Roots(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}); err != nil {
			t.Error(err)
		}
	}
	for _, s := range c.Nodes {
		if s != leader {
			if _, err := s.IssueUser(t.Context(), clustertest.Meta(), "bob", cairn.UserReader, "", csr, time.Hour); !errors.Is(err, cairn.ErrUnavailable) {
				t.Errorf("at %s: %v", s.Name, err)
			}
		}
	}
}

// TestDuties: a duty runs on the leader and nowhere else, ends with the term, and the next term of the node waits for it.
func TestDuties(t *testing.T) {
	t.Parallel()
	const nodes = 3
	var running, begun [nodes]atomic.Int32
	var slow atomic.Int32 // the node whose duty takes until release to end
	slow.Store(-1)
	release := make(chan struct{})
	c := clustertest.New(t)
	c.Configure = func(index int, config *cluster.Config) {
		config.Duties = []func(context.Context){func(ctx context.Context) {
			if n := running[index].Add(1); n != 1 {
				t.Errorf("%d duties run on node %d", n, index)
			}
			begun[index].Add(1)
			<-ctx.Done()
			if slow.Load() == int32(index) {
				<-release
			}
			running[index].Add(-1)
		}}
	}
	free := sync.OnceFunc(func() { close(release) })
	defer free() // nodes that are closed wait for their duties
	c.Grow(nodes)
	first := c.Leader()
	here := c.Index(first)
	slow.Store(int32(here))
	c.WaitFor("the leader does its duty", func() bool { return running[here].Load() == 1 })
	terms := begun[here].Load()
	observer := c.Nodes[(here+1)%nodes]
	elsewhere := func() *clustertest.Server {
		for i, s := range c.Nodes {
			if i != here && s.IsLeader() && running[i].Load() == 1 {
				return s
			}
		}
		return nil
	}
	// Under load, other elections may come between.
	c.WaitFor("another node leads and does its duty", func() bool {
		_ = first.TransferLeadership(t.Context(), "")
		return elsewhere() != nil
	})
	before, elected := observer.Status().Term, uint64(0)
	c.WaitFor("the first one is elected again", func() bool {
		if s := elsewhere(); s != nil {
			_ = s.TransferLeadership(t.Context(), first.Identity().Node)
		}
		status := observer.Status()
		elected = status.Term
		return status.Leader == first.Identity().Node && status.Term > before
	})
	// A leader whose term has begun would answer.
	if _, err := observer.ReadView(t.Context()); err == nil && observer.Status().Term == elected || begun[here].Load() != terms {
		t.Errorf("a term has begun while the duty of the one before it runs")
	}
	free()
	c.WaitFor("it does its duty again", func() bool {
		if s := elsewhere(); s != nil {
			_ = s.TransferLeadership(t.Context(), first.Identity().Node)
		}
		return begun[here].Load() > terms
	})
}
