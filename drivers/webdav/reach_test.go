package webdav

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// TestReach: only a client whom the exporter lets in, to something that is served, has reached it.
func TestReach(t *testing.T) {
	f := newFixture(t)
	server := httptest.NewServer(f.e)
	defer server.Close()
	spec := drivers.ExportSpec{
		ID: drivers.ExportID{Replica: "clone"}, Share: "clone", Root: t.TempDir(), Epoch: 1, ReadOnly: true,
		Rules: []cairn.AccessRule{userRule("drill", "secret", cairn.AccessRO)},
	}
	if _, err := f.e.Export(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	url := server.URL + "/shares/clone/"
	if err := Reach(t.Context(), server.Client(), url, "drill", "secret"); err != nil {
		t.Error(err)
	}
	if err := Reach(t.Context(), server.Client(), url, "drill", "wrong"); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("wrong password: %v", err)
	}
	if err := f.e.Unexport(context.Background(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if err := Reach(t.Context(), server.Client(), url, "drill", "secret"); !errors.Is(err, cairn.ErrUnavailable) {
		t.Errorf("not served any more: %v", err)
	}
}
