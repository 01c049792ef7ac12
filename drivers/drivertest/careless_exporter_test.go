package drivertest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Each flaw of an exporter must fail the clause that forbids it. A failing test cannot be caught within its process, so each
// runs in a child.
func TestExporterConformanceFindsFlaws(t *testing.T) {
	tests := []struct {
		flaw   flaw
		clause string
	}{
		{movesOnRepeat, "export_serves_the_data_and_is_idempotent"},
		{keepsOldRules, "rules_are_replaced_as_a_whole_set"},
		{letsAnybodyIn, "no_rules_means_nobody"},
		{letsReadersWrite, "a_rule_grants_its_level_and_no_more"},
		{trustsNames, "users_are_known_by_their_password"},
		{writesReadOnly, "a_read-only_export_refuses_writes_that_a_rule_allows"},
		{oneExportPerReplica, "a_snapshot_is_exported_beside_its_replica"},
		{goesBack, "a_standby_shows_its_latest_point_and_nobody_writes_it"},
		{writesReadOnly, "a_standby_shows_its_latest_point_and_nobody_writes_it"},
		{listsInAnyOrder, "exports_lists_what_is_served,_in_order"},
		{failsOnAbsent, "unexport_of_what_is_not_exported_succeeds"},
		{finishesUploads, "unexport_ends_what_is_in_progress"},
		{finishesUploads, "fence_ends_a_write_in_progress"},
		{asksNoGuard, "the_guard_is_asked"},
		{forgetsFence, "fence_stops_lower_epochs_and_no_higher_ones"},
		{fencesEverything, "fence_stops_lower_epochs_and_no_higher_ones"},
		{overfills, "the_size_is_enforced_and_a_refused_write_leaves_nothing"},
		{leavesStaging, "the_size_is_enforced_and_a_refused_write_leaves_nothing"},
		{followsLinks, "a_symbolic_link_does_not_lead_out_of_the_export"},
		{holdsNothing, "quiesce_holds_writes_until_resume"},
		{holdsForever, "quiesce_ends_with_its_context"},
	}
	for _, tt := range tests {
		t.Run(string(tt.flaw)+" breaks "+tt.clause, func(t *testing.T) {
			t.Parallel()
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPlainExporter$/^"+tt.clause+"$", "-test.v")
			child.Env = append(os.Environ(), "CAIRN_TEST_FLAW="+string(tt.flaw))
			out, err := child.CombinedOutput()
			if !strings.Contains(string(out), "--- FAIL: TestPlainExporter/"+tt.clause) {
				t.Errorf("the clause did not fail: %v\n%s", err, out)
			}
		})
	}
}

// TestPlainExporter is the control without a flaw; with one in the environment it is a child that must fail.
func TestPlainExporter(t *testing.T) {
	f := flaw(os.Getenv("CAIRN_TEST_FLAW"))
	ExporterConformance(t, ExporterHarness{
		Patience: 5 * time.Second,
		New: func(_ *testing.T, guard drivers.Guard) drivers.Exporter {
			return &plain{flaw: f, guard: guard, served: make(map[drivers.ExportID]drivers.ExportSpec), fences: make(map[cairn.ReplicaID]uint64)}
		},
		Dial: func(_ *testing.T, e drivers.Exporter, as Identity) Client { return plainClient{e.(*plain), as} },
		UserRule: func(_ *testing.T, user string, level cairn.AccessLevel) (cairn.AccessRule, string) {
			const password = "correct horse"
			return cairn.AccessRule{
				ID: "user", Kind: cairn.AccessUser, Who: user, Level: level, State: cairn.RuleActive,
				Secret: cairn.HashSecret([]byte("salt"), password),
			}, password
		},
	})
}

// flaw is what a careless exporter does.
type flaw string

const (
	movesOnRepeat       flaw = "moves on repeat"
	keepsOldRules       flaw = "keeps old rules"
	letsAnybodyIn       flaw = "lets anybody in"
	letsReadersWrite    flaw = "lets readers write"
	trustsNames         flaw = "trusts names"
	writesReadOnly      flaw = "writes read-only"
	oneExportPerReplica flaw = "one export per replica"
	goesBack            flaw = "goes back"
	listsInAnyOrder     flaw = "lists in any order"
	failsOnAbsent       flaw = "fails on absent"
	finishesUploads     flaw = "finishes uploads"
	asksNoGuard         flaw = "asks no guard"
	forgetsFence        flaw = "forgets fence"
	fencesEverything    flaw = "fences everything"
	overfills           flaw = "overfills"
	leavesStaging       flaw = "leaves staging"
	followsLinks        flaw = "follows links"
	holdsNothing        flaw = "holds nothing"
	holdsForever        flaw = "holds forever"
)

// plain is an exporter within this process, with at most one flaw. A location is the ID of its export.
type plain struct {
	flaw  flaw
	guard drivers.Guard

	mu      sync.Mutex
	served  map[drivers.ExportID]drivers.ExportSpec
	fences  map[cairn.ReplicaID]uint64
	exports int
	writes  sync.RWMutex // held by a quiesce
}

func (p *plain) id(id drivers.ExportID) drivers.ExportID {
	if p.flaw == oneExportPerReplica {
		id.Snapshot = ""
	}
	return id
}

// Export implements drivers.Exporter.
func (p *plain) Export(_ context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := p.id(spec.ID)
	if spec.Epoch < p.fences[id.Replica] && p.flaw != forgetsFence {
		return nil, cairn.ErrStale
	}
	if p.flaw == keepsOldRules {
		spec.Rules = append(spec.Rules, p.served[id].Rules...)
	}
	p.served[id] = spec
	p.exports++
	url := string(id.Replica) + "/" + string(id.Snapshot)
	if spec.Standby {
		url = string(id.Replica) + "/" + standby
	}
	if p.flaw == movesOnRepeat {
		url += fmt.Sprintf("?%d", p.exports)
	}
	return []cairn.ExportLocation{{URL: url, ReadOnly: spec.ReadOnly}}, nil
}

// standby is where the points of a replica that is not active are read.
const standby = "standby"

// InUse implements drivers.StandbyServer.
func (p *plain) InUse(context.Context, drivers.ExportID) (bool, error) { return false, nil }

// point is the one of a replica that is not active that answers.
func (p *plain) point(replica cairn.ReplicaID) (latest cairn.SnapshotID) {
	for id, spec := range p.served {
		if id.Replica == replica && spec.Standby && (latest == "" || id.Snapshot > latest != (p.flaw == goesBack)) {
			latest = id.Snapshot
		}
	}
	return latest
}

// Unexport implements drivers.Exporter.
func (p *plain) Unexport(_ context.Context, id drivers.ExportID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.served[p.id(id)]; !ok && p.flaw == failsOnAbsent {
		return cairn.ErrNotFound
	}
	delete(p.served, p.id(id))
	return nil
}

// Exports implements drivers.Exporter.
func (p *plain) Exports(context.Context) ([]drivers.ExportSpec, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []drivers.ExportSpec
	for _, spec := range p.served {
		list = append(list, spec)
	}
	slices.SortFunc(list, func(a, b drivers.ExportSpec) int {
		return cmp.Or(cmp.Compare(a.ID.Replica, b.ID.Replica), cmp.Compare(a.ID.Snapshot, b.ID.Snapshot))
	})
	if p.flaw == listsInAnyOrder {
		slices.Reverse(list)
	}
	return list, nil
}

// Fence implements drivers.Exporter.
func (p *plain) Fence(_ context.Context, id cairn.ReplicaID, below uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flaw == fencesEverything {
		clear(p.served)
	}
	p.fences[id] = below
	return nil
}

// Quiesce implements drivers.Quiescer.
func (p *plain) Quiesce(ctx context.Context, id drivers.ExportID) (func(), error) {
	if _, err := p.spec(cairn.ExportLocation{URL: string(id.Replica) + "/"}); err != nil || p.flaw == holdsNothing {
		return func() {}, nil
	}
	p.writes.Lock()
	resume := sync.OnceFunc(p.writes.Unlock)
	if p.flaw != holdsForever {
		context.AfterFunc(ctx, resume)
	}
	return resume, nil
}

func (p *plain) spec(at cairn.ExportLocation) (drivers.ExportSpec, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	path, _, _ := strings.Cut(at.URL, "?")
	replica, snapshot, _ := strings.Cut(path, "/")
	if snapshot == standby {
		if snapshot = string(p.point(cairn.ReplicaID(replica))); snapshot == "" {
			return drivers.ExportSpec{}, cairn.ErrNotFound
		}
	}
	spec, ok := p.served[drivers.ExportID{Replica: cairn.ReplicaID(replica), Snapshot: cairn.SnapshotID(snapshot)}]
	if !ok {
		return drivers.ExportSpec{}, cairn.ErrNotFound
	}
	return spec, nil
}

// admit is what an exporter does before every request.
func (p *plain) admit(at cairn.ExportLocation, as Identity, write bool) (drivers.ExportSpec, error) {
	spec, err := p.spec(at)
	if err != nil {
		return spec, err
	}
	if err := p.guard.Check(spec.ID.Replica, spec.Epoch); err != nil && p.flaw != asksNoGuard {
		return spec, err
	}
	p.mu.Lock()
	fenced := spec.Epoch < p.fences[spec.ID.Replica] && p.flaw != forgetsFence
	p.mu.Unlock()
	switch {
	case write && fenced:
		return spec, cairn.ErrStale
	case write && (spec.ReadOnly || spec.ID.Snapshot != "") && p.flaw != writesReadOnly:
		return spec, cairn.ErrDenied
	case p.flaw == letsAnybodyIn || slices.ContainsFunc(spec.Rules, func(r cairn.AccessRule) bool { return p.allows(r, as, write) }):
		return spec, nil
	}
	return spec, cairn.ErrDenied
}

func (p *plain) allows(rule cairn.AccessRule, as Identity, write bool) bool {
	if write && rule.Level != cairn.AccessRW && p.flaw != letsReadersWrite {
		return false
	}
	if rule.Kind == cairn.AccessUser {
		return rule.Who == as.User && (p.flaw == trustsNames || rule.Secret.Matches(as.Password))
	}
	network, err := netip.ParsePrefix(rule.Who)
	return err == nil && network.Contains(as.From)
}

// publish writes a file by way of the staging directory.
func (p *plain) publish(spec drivers.ExportSpec, name string, data []byte) error {
	p.writes.RLock()
	defer p.writes.RUnlock()
	staged, path := filepath.Join(spec.Staging, name), filepath.Join(spec.Root, name)
	if p.flaw == followsLinks {
		return os.WriteFile(path, data, 0o644)
	}
	if err := os.WriteFile(staged, data, 0o644); err != nil {
		return err
	}
	if used, err := usedBut(spec.Root, name); err != nil {
		return err
	} else if spec.EnforceSize && used+int64(len(data)) > spec.Size && p.flaw != overfills {
		if p.flaw != leavesStaging {
			return errors.Join(cairn.ErrNoSpace, os.Remove(staged))
		}
		return cairn.ErrNoSpace
	}
	return os.Rename(staged, path)
}

func usedBut(root, name string) (used int64, err error) {
	entries, err := os.ReadDir(root)
	for _, entry := range entries {
		if info, infoErr := entry.Info(); infoErr == nil && entry.Name() != name && info.Mode().IsRegular() {
			used += info.Size()
		}
	}
	return used, err
}

// plainClient is a client of plain.
type plainClient struct {
	p  *plain
	as Identity
}

// Read implements Client.
func (c plainClient) Read(_ context.Context, at cairn.ExportLocation, name string) ([]byte, error) {
	spec, err := c.p.admit(at, c.as, false)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(spec.Root, name)
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() && c.p.flaw != followsLinks {
		return nil, cairn.ErrDenied
	}
	return os.ReadFile(path)
}

// Write implements Client.
func (c plainClient) Write(ctx context.Context, at cairn.ExportLocation, name string, data []byte) error {
	w, err := c.Begin(ctx, at, name, data)
	if err != nil {
		return err
	}
	return w.Close()
}

// Begin implements Client.
func (c plainClient) Begin(_ context.Context, at cairn.ExportLocation, name string, first []byte) (io.WriteCloser, error) {
	spec, err := c.p.admit(at, c.as, true)
	if err != nil {
		return nil, err
	}
	return &plainUpload{c: c, at: at, spec: spec, name: name, Buffer: *bytes.NewBuffer(slices.Clone(first))}, nil
}

type plainUpload struct {
	bytes.Buffer
	c    plainClient
	at   cairn.ExportLocation
	spec drivers.ExportSpec
	name string
}

// Close asks once more whether the write is allowed.
func (u *plainUpload) Close() error {
	if _, err := u.c.p.admit(u.at, u.c.as, true); err != nil && u.c.p.flaw != finishesUploads {
		return err
	}
	return u.c.p.publish(u.spec, u.name, u.Bytes())
}
