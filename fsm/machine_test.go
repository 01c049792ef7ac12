package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cairn-storage/cairn"
)

func TestApplyPanics(t *testing.T) {
	good, err := Encode(Meta{}, &Checkpoint{})
	if err != nil {
		t.Fatal(err)
	}
	for name, apply := range map[string]func(*Machine){
		"entry that cannot be decoded": func(m *Machine) { m.Apply(2, []byte{200}) },
		"entry that was applied":       func(m *Machine) { m.Apply(1, good) },
	} {
		t.Run(name, func(t *testing.T) {
			m := New()
			m.Apply(1, good)
			defer func() {
				if reason := recover(); reason == nil || !strings.Contains(fmt.Sprint(reason), "log entry") {
					t.Errorf("recovered %v, want a panic that names the log entry", reason)
				}
			}()
			apply(m)
		})
	}
}

func TestSubscribe(t *testing.T) {
	m := New()
	var heard []string
	listen := func(who string) func([]Change) {
		return func(changes []Change) {
			heard = append(heard, fmt.Sprintf("%s:%d:%v", who, m.View().Index(), changes))
		}
	}
	cancelA := m.Subscribe(listen("a"))
	m.Subscribe(listen("b"))
	apply(t, m, &CreateUser{cairn.User{Name: "u", Role: cairn.UserAdmin}})
	try(t, m, Meta{}, &DeleteUser{Name: "u"}) // refused: nothing to hear
	cancelA()
	apply(t, m, &SetQuota{cairn.Quota{Project: "p"}})
	if err := m.Restore(bytes.NewReader(stream(t, smallMachine(t)))); err != nil {
		t.Fatal(err)
	}
	first, second := numberKey(1), numberKey(2)
	want := []string{
		"a:1:[{users u} {events " + first + "}]",
		"b:1:[{users u} {events " + first + "}]",
		"b:3:[{quotas p} {events " + second + "}]",
		"b:7:[]",
	}
	if !slices.Equal(heard, want) {
		t.Errorf("heard\n%s\nwant\n%s", strings.Join(heard, "\n"), strings.Join(want, "\n"))
	}
}

func TestViewsAreFrozenAndCached(t *testing.T) {
	m := smallMachine(t)
	v := m.View()
	if m.View() != v {
		t.Error("two views without a change between them")
	}
	digest, share := v.Digest(), v.Share("s1")
	name := "renamed"
	apply(t, m, &UpdateShare{ID: "s1", Name: &name, SetMetadata: map[string]string{"k": "v"}})
	if v.Digest() != digest || v.Share("s1") != share || share.Name != "s1" || share.Metadata["k"] != "" {
		t.Error("a view has changed with the machine")
	}
	if v.ShareByName("web", cairn.FormatFiles, "s1") != share || v.ShareByName("web", cairn.FormatFiles, name) != nil {
		t.Error("the names of a view have changed with the machine")
	}
	if now := m.View(); now.ShareByName("web", cairn.FormatFiles, name) == nil || now.ShareByName("web", cairn.FormatFiles, "s1") != nil {
		t.Error("the new view has the old name")
	}
}

// TestReadersNeverRace reads, dry-runs and snapshots while the log goes on; the race detector judges.
func TestReadersNeverRace(t *testing.T) {
	m := smallMachine(t)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				v := m.View()
				shares := int64(len(slices.Collect(v.Shares("web"))))
				if used := v.Usage("web").Shares; used != shares {
					t.Errorf("entry %d: %d shares, but usage says %d", v.Index(), shares, used)
				}
				m.DryRun(Meta{}, createShare(fmt.Sprintf("dry%d", n), 1))
				if n%10 == 0 {
					stream(t, m)
				}
			}
		})
	}
	for i := range 300 {
		apply(t, m, createShare(fmt.Sprintf("s%d", i+2), 1))
	}
	close(done)
	readers.Wait()
	checkState(t, m)
}

func TestEventsAreARing(t *testing.T) {
	m := New()
	for i := range eventsKept + 10 {
		apply(t, m, &SetQuota{cairn.Quota{Project: "p", Limits: cairn.Limits{Shares: int64(i)}}})
	}
	v := m.View()
	if v.FirstEvent() != 11 || v.LastEvent() != eventsKept+10 || v.events.len() != eventsKept {
		t.Errorf("events %d to %d in %d rows", v.FirstEvent(), v.LastEvent(), v.events.len())
	}
	next := uint64(100)
	for e := range v.Events(99) {
		if e.Seq != next {
			t.Fatalf("event %d, want %d", e.Seq, next)
		}
		next++
	}
	if next != v.LastEvent()+1 {
		t.Errorf("the last event read was %d", next-1)
	}
	checkState(t, m)
}

func TestRequestsAreForgottenInOrder(t *testing.T) {
	m := New()
	quota := &SetQuota{cairn.Quota{Project: "p"}}
	token := func(i int) Meta { return Meta{Token: fmt.Sprintf("t%d", (i*7919)%1000003)} } // not in order of their keys
	for i := range requestsKept + 2 {
		if r := try(t, m, token(i), quota); r.Err != nil || r.Replayed {
			t.Fatalf("request %d: %+v", i, r)
		}
	}
	if n := m.View().requests.len(); n != requestsKept {
		t.Errorf("%d requests are remembered, want %d", n, requestsKept)
	}
	for i, replayed := range map[int]bool{2: true, 1: false, requestsKept + 1: true} {
		if r := m.DryRun(token(i), quota); r.Replayed != replayed {
			t.Errorf("request %d: replayed %v, want %v", i, r.Replayed, replayed)
		}
	}
	checkState(t, m)
}

func TestDigestTellsRowsApart(t *testing.T) {
	c := newRowCodec()
	seen := map[uint64]string{}
	for _, row := range []struct{ table, key, value string }{
		{"ab", "c", "d"}, {"a", "bc", "d"}, {"a", "b", "cd"}, {"", "abc", "d"}, {"ab", "cd", ""}, {"abc", "d", ""},
	} {
		sum := c.sum(Table(row.table), row.key, []byte(row.value))
		if other, ok := seen[sum]; ok {
			t.Errorf("%v has the hash of %s", row, other)
		}
		seen[sum] = fmt.Sprint(row)
	}
}

func TestProjects(t *testing.T) {
	m := smallMachine(t)
	for _, p := range []cairn.ProjectID{"zoo", "api", "web"} {
		apply(t, m, &SetQuota{cairn.Quota{Project: p, Limits: cairn.Limits{Shares: 9, Bytes: -1}}})
	}
	c := createShare("s9", 1)
	c.Share.Project = "beta"
	apply(t, m, c)
	v := m.View()
	if got := slices.Collect(v.Projects()); !slices.Equal(got, []cairn.ProjectID{"api", "beta", "web", "zoo"}) {
		t.Errorf("projects %v", got)
	}
	for p := range v.Projects() {
		if p != "api" {
			t.Errorf("first project %s", p)
		}
		break
	}
	if q := v.Quota("none"); q.Limits.Shares != cairn.Unlimited || q.Project != "none" {
		t.Errorf("quota of an unknown project: %+v", q)
	}
}

func TestCommandVersion(t *testing.T) {
	m := New()
	if v := m.View().CommandVersion(); v != CurrentVersion {
		t.Errorf("without nodes: %d", v)
	}
	apply(t, m, &InitCluster{Cluster: cairn.Cluster{ID: "c", Name: "c"}, Admin: cairn.User{Name: "a", Role: cairn.UserAdmin}})
	apply(t, m, &RegisterNode{cairn.Node{ID: "n1", Name: "n1", Address: "a", CommandVersion: 7}})
	if v := m.View().CommandVersion(); v != CurrentVersion {
		t.Errorf("with a newer node: %d; a node cannot propose what it does not know itself", v)
	}
	for op := range ops {
		if v := Version(ops[op]()); v == 0 || v > CurrentVersion {
			t.Errorf("op %d has version %d", op, v)
		}
	}
}

func TestAttemptTakesBackItsOwnPart(t *testing.T) {
	m := smallMachine(t)
	before := m.View()
	tx := newTx(m.live, Meta{}, m.codec)
	write := func(limit int64) {
		put(tx, tx.quotas, &cairn.Quota{Project: "web", Limits: cairn.Limits{Shares: limit}})
	}
	write(1)
	kept, changes := tx.digest, len(tx.changes)
	err := tx.attempt(func() error {
		write(2)
		put(tx, tx.quotas, &cairn.Quota{Project: "db"})
		return cairn.ErrStale
	})
	if !errors.Is(err, cairn.ErrStale) {
		t.Errorf("attempt: %v", err)
	}
	if tx.Quota("web").Limits.Shares != 1 || tx.quotas.get("db") != nil || tx.digest != kept || len(tx.changes) != changes {
		t.Errorf("after a refused part: %+v, digest %x, %d changes; want what was written before it, %x, %d",
			tx.Quota("web"), tx.digest, len(tx.changes), kept, changes)
	}
	err = tx.attempt(func() error { return tx.attempt(func() error { write(3); return cairn.ErrStale }) })
	if tx.attempt(func() error { write(4); return nil }) != nil || err == nil || tx.Quota("web").Limits.Shares != 4 {
		t.Errorf("a part after a refused one: %+v, %v", tx.Quota("web"), err)
	}
	if before.Quota("web").Limits.Shares == 4 {
		t.Error("a frozen view changed")
	}
}
