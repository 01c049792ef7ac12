package cluster_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
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
