package replica

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// listing is an exporter during whose listing something happens.
type listing struct {
	*memoryExporter
	lists  int
	during func()
	err    error
}

func (l *listing) Exports(ctx context.Context) ([]drivers.ExportSpec, error) {
	l.lists++
	list, err := l.memoryExporter.Exports(ctx)
	if l.during != nil {
		l.during()
	}
	return list, errors.Join(err, l.err)
}

func newServed() (*served, *listing, *time.Time) {
	now := time.Unix(0, 0)
	exporter := &listing{memoryExporter: &memoryExporter{
		do:    func(_ context.Context, _ string, change func() error) error { return change() },
		specs: make(map[drivers.ExportID]drivers.ExportSpec),
	}}
	return &served{exporter: exporter, now: func() time.Time { return now }, every: time.Minute}, exporter, &now
}

func exportOf(id cairn.ReplicaID) drivers.ExportSpec {
	return drivers.ExportSpec{ID: drivers.ExportID{Replica: id}, Share: "s"}
}

func wantServed(t *testing.T, s *served, id cairn.ReplicaID, want int) {
	t.Helper()
	if list, err := s.of(t.Context(), id); err != nil || len(list) != want {
		t.Errorf("served of %s: %+v, %v; want %d exports", id, list, err, want)
	}
}

func TestServedReadsTheListOnceInAWhile(t *testing.T) {
	s, exporter, now := newServed()
	exporter.specs[exportOf("a").ID] = exportOf("a")
	for _, id := range []cairn.ReplicaID{"a", "a", "b", "c"} {
		wantServed(t, s, id, map[cairn.ReplicaID]int{"a": 1}[id])
	}
	if exporter.lists != 1 {
		t.Errorf("%d lists, want one", exporter.lists)
	}
	delete(exporter.specs, exportOf("a").ID) // behind our back
	*now = now.Add(time.Minute)
	wantServed(t, s, "a", 0)
}

func TestServedDoesNotBelieveAListOlderThanAChange(t *testing.T) {
	s, exporter, now := newServed()
	for _, id := range []cairn.ReplicaID{"goes", "stays"} {
		if _, err := s.export(t.Context(), exportOf(id)); err != nil {
			t.Fatal(err)
		}
	}
	wantServed(t, s, "goes", 1)
	exporter.during = func() {
		exporter.during = nil
		if err := s.unexport(t.Context(), exportOf("goes").ID); err != nil {
			t.Error(err)
		}
		if _, err := s.export(t.Context(), exportOf("comes")); err != nil {
			t.Error(err)
		}
		wantServed(t, s, "stays", 1) // another look meanwhile does not wait and does not list
	}
	*now = now.Add(time.Hour)
	lists := exporter.lists
	wantServed(t, s, "stays", 1)
	wantServed(t, s, "goes", 0)
	wantServed(t, s, "comes", 1)
	if exporter.lists != lists+1 {
		t.Errorf("%d lists, want one", exporter.lists-lists)
	}
}

func TestServedReadsAgainAfterAnError(t *testing.T) {
	s, exporter, _ := newServed()
	wantServed(t, s, "a", 0)
	exporter.do = func(_ context.Context, _ string, change func() error) error {
		return errors.Join(change(), cairn.ErrTimeout)
	}
	if _, err := s.export(t.Context(), exportOf("a")); err == nil {
		t.Fatal("no error")
	}
	exporter.err = cairn.ErrUnavailable
	for range 2 {
		if _, err := s.of(t.Context(), "a"); !errors.Is(err, cairn.ErrUnavailable) {
			t.Errorf("%v: a list that could not be read was taken for an answer", err)
		}
	}
	exporter.err = nil
	wantServed(t, s, "a", 1)
	if err := s.unexport(t.Context(), exportOf("a").ID); err == nil {
		t.Fatal("no error")
	}
	wantServed(t, s, "a", 0)
}
