package systemtest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/dav"
)

// TestSameURL: a client keeps the URL of a node that has nothing to do with the share, and writes through it while the node of
// the active replica is killed. It sees one long request, and at most one whose outcome nobody knows.
func TestSameURL(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	s := c.makeCopied("docs", 2)
	share, err := s.show(t.Context())
	s.check(err)
	if n := len(share.GetLocations()); n != 3 || !share.GetLocations()[0].GetPreferred() || share.GetLocations()[1].GetPreferred() {
		t.Fatalf("locations %v, want three with the active replica's node first", share.GetLocations())
	}
	old, door := s.host(), s.bystander()
	ca, err := s.CA()
	s.check(err)
	files, err := dav.New(dav.Config{
		URL: strings.Replace(share.GetLocations()[0].GetUrl(), old.Host, door, 1), CA: ca, User: "tester", Password: s.password, Timeout: time.Minute,
	})
	s.check(err)
	defer files.Close()
	for n := range 20 {
		s.check(appendOne(t.Context(), files, n))
	}
	s.follow()
	s.check(old.Kill())
	began, unknown := time.Now(), 0
	for n := 20; n < 40; n++ {
		for err = appendOne(t.Context(), files, n); dav.StatusOf(err) == http.StatusBadGateway; err = appendOne(t.Context(), files, n) {
			unknown++
		}
		if err != nil {
			t.Fatalf("record %d, %s after the kill: %v", n, time.Since(began), err)
		}
	}
	t.Logf("20 writes through %s since the kill took %s, %d had an unknown outcome", door, time.Since(began).Round(time.Millisecond), unknown)
	if unknown > 1 {
		t.Errorf("%d requests had an unknown outcome, one was under way", unknown)
	}
	if s.host() == old {
		t.Error("the share is still at the node that was killed")
	}
	for n := range 40 {
		if got, err := read(t.Context(), files, fmt.Sprint("record-", n)); err != nil || string(got) != fmt.Sprint(n) {
			t.Errorf("record %d reads %q (%v)", n, got, err)
		}
	}
}

func appendOne(ctx context.Context, files *dav.Client, n int) error {
	text := fmt.Sprint(n)
	return files.Put(ctx, fmt.Sprint("record-", n), strings.NewReader(text), int64(len(text)))
}

// bystander is the host of a node without a replica of the share.
func (s *copied) bystander() string {
	s.t.Helper()
	share, err := s.show(s.t.Context())
	s.check(err)
	for _, server := range s.Servers() {
		has := false
		for _, r := range share.GetReplicas() {
			has = has || r.GetNode() == server.Name
		}
		if !has {
			return server.Host
		}
	}
	s.t.Fatal("every node has a replica")
	return ""
}
