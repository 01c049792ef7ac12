package replica

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// scene is a replica that is as it should be: present, reported and exported. Each test case spoils something.
type scene struct {
	*Want
	*Have
}

func newScene() scene {
	row := &cairn.Replica{
		ID: "r", Share: "s", Node: node1, Pool: poolOne, Role: cairn.RoleActive, Epoch: 2, Generation: 5,
		Want: cairn.ReplicaWant{Presence: cairn.Present, Size: 100},
		Have: cairn.ReplicaHave{Generation: 5, Presence: cairn.Present, Size: 100, Locations: []cairn.ExportLocation{{URL: "https://n1/shares/s/"}}},
	}
	rules := []cairn.AccessRule{{ID: "a1", Kind: cairn.AccessIP, Who: "10.0.0.0/8", Level: cairn.AccessRW}}
	s := scene{
		&Want{Replica: row, Share: &cairn.Share{ID: "s", Protocol: cairn.ProtocolWebDAV}, Rules: rules},
		&Have{
			Object: &drivers.Object{ID: "r", Epoch: 2, Size: 100, Ready: true, Root: "/pool/r/data", Staging: "/pool/r/staging"},
			Info:   drivers.Info{Enforcement: drivers.EnforcedByExporter},
		},
	}
	s.serveAsWanted()
	return s
}

func (s *scene) serveAsWanted() {
	s.Served = nil
	for _, e := range wantedExports(s.Want, s.Have) {
		s.Served = append(s.Served, e.spec)
	}
}

// isNew: the replica has never been reported, and nothing of it is there.
func (s *scene) isNew() {
	s.Replica.Have, s.Object, s.Served = cairn.ReplicaHave{}, nil, nil
}

// snapshot adds a snapshot with the given row and, if found is not nil, the given object.
func (s *scene) snapshot(want, have cairn.Presence, found *drivers.SnapshotObject, rules ...cairn.AccessRule) {
	s.Snapshots = append(s.Snapshots, WantSnapshot{
		&cairn.SnapshotInstance{Snapshot: "snap", Replica: "r", Want: want, Have: have, Locations: s.Replica.Have.Locations}, rules, false, "",
	})
	if found != nil {
		found.ID = "snap"
		s.Object.Snapshots = append(s.Object.Snapshots, *found)
	}
}

// foster is snapshot, of one that somebody else has named.
func (s *scene) foster(want, have cairn.Presence, found *drivers.SnapshotObject) {
	s.snapshot(want, have, found)
	s.Snapshots[len(s.Snapshots)-1].Object = "theirs"
}

func ready() *drivers.SnapshotObject {
	return &drivers.SnapshotObject{Ready: true, Root: "/pool/r/snap"}
}

func half() *drivers.SnapshotObject { return &drivers.SnapshotObject{} }

var reader = cairn.AccessRule{ID: "a2", Kind: cairn.AccessIP, Who: "10.0.0.7/32", Level: cairn.AccessRO}

func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*scene)
		want  string // steps, then the error's sentinel
	}{
		{"nothing to do", func(*scene) {}, ""},

		{"new", func(s *scene) { s.isNew() }, "create"},
		{"new from a snapshot", func(s *scene) { s.isNew(); s.Replica.Want.Source, s.Replica.Want.SourceReplica = "snap", "other" }, "clone"},
		{"new from an existing object", func(s *scene) { s.isNew(); s.Replica.Want.Adopt = "theirs" }, "adopt"},
		{"half made by a crash", func(s *scene) { s.isNew(); s.Object = &drivers.Object{ID: "r", Epoch: 2} }, "create"},
		{"half cloned by a crash", func(s *scene) {
			s.isNew()
			s.Object, s.Replica.Want.Source = &drivers.Object{ID: "r", Epoch: 2}, "snap"
		}, "clone"},
		{"made, not yet exported", func(s *scene) { s.Replica.Have, s.Served = cairn.ReplicaHave{}, nil }, "export"},
		{"made and exported, not yet reported", func(s *scene) { s.Replica.Have = cairn.ReplicaHave{} }, "export"},
		{"reported absent before", func(s *scene) { s.isNew(); s.Replica.Have.Presence = cairn.Absent }, "create"},

		{"missing", func(s *scene) { s.Object, s.Served = nil, nil }, "! not found"},
		{"missing and still exported", func(s *scene) { s.Object = nil }, "unexport ! not found"},
		{"missing clone", func(s *scene) { s.Object, s.Served, s.Replica.Want.Source = nil, nil, "snap" }, "! not found"},
		{"damaged", func(s *scene) { s.Object.Ready = false }, "unexport ! corrupt"},
		{"object with a newer epoch", func(s *scene) { s.Object.Epoch = 3 }, "! stale"},
		{"object with an older epoch", func(s *scene) { s.Object.Epoch = 1 }, ""},

		{"lost export", func(s *scene) { s.Served = nil }, "export"},
		{"rule added", func(s *scene) { s.Rules = append(s.Rules, reader) }, "export"},
		{"rule removed", func(s *scene) { s.Rules = nil }, "export"},
		{"other secret", func(s *scene) {
			changed := s.Rules[0]
			changed.Secret.Hash = []byte{1}
			s.Rules = []cairn.AccessRule{changed}
		}, "export"},
		{"a rule that became active changes nothing", func(s *scene) { s.Served[0].Rules = append([]cairn.AccessRule{}, s.Rules...) }, ""},
		{"exported under an old epoch", func(s *scene) { s.Served[0].Epoch = 1 }, "export"},
		{"standby is not served", func(s *scene) { s.Replica.Role = cairn.RoleStandby }, "unexport"},
		{"more sync points than anybody needs", func(s *scene) { s.Surplus, s.Due = true, true }, "prune sync points"},
		{"more sync points, one of them is gone back to", func(s *scene) {
			s.Surplus, s.Due, s.Served, s.Replica.Want.Revert = true, true, nil, "sync"
		}, "revert to snapshot sync"},
		{"no protocol", func(s *scene) { s.Share.Protocol, s.Served = "", nil }, ""},

		{"grow", func(s *scene) { s.Replica.Want.Size = 200 }, "resize"},
		{"grown, exporter has the old limit", func(s *scene) { s.Replica.Want.Size, s.Object.Size = 200, 200 }, "export"},
		{"shrink lowers the exporter's limit first", func(s *scene) { s.Replica.Want.Size = 50 }, "export"},
		{"shrink with the limit lowered", func(s *scene) { s.Replica.Want.Size, s.Served[0].Size = 50, 50 }, "resize"},
		{"shrink where the file system enforces", func(s *scene) {
			s.Info.Enforcement = drivers.EnforcedByFileSystem
			s.serveAsWanted()
			s.Replica.Want.Size = 50
		}, "export, resize"},
		{"shrink refused, wanted size back", func(s *scene) { s.Served[0].Size = 50 }, "export"},

		{"revert: unexported first", func(s *scene) { s.Replica.Want.Revert = "snap" }, "unexport"},
		{"revert: then reverted, not exported", func(s *scene) { s.Replica.Want.Revert, s.Served = "snap", nil }, "revert to snapshot snap"},
		{"revert: repeated until the wish is gone", func(s *scene) {
			s.Replica.Want.Revert, s.Object.Reverted, s.Served = "snap", "snap", nil
		}, "revert to snapshot snap"},
		{"revert: a mounted snapshot stays served", func(s *scene) {
			s.snapshot(cairn.Present, cairn.Present, ready(), reader)
			s.Replica.Want.Revert = "snap"
			s.serveAsWanted()
		}, "revert to snapshot snap"},

		{"snapshot", func(s *scene) { s.snapshot(cairn.Present, "", nil) }, "snapshot snap"},
		{"snapshot half made", func(s *scene) { s.snapshot(cairn.Present, cairn.Absent, half()) }, "snapshot snap"},
		{"snapshot cut, not yet reported", func(s *scene) { s.snapshot(cairn.Present, "", ready()) }, ""},
		{"snapshot missing is never cut again", func(s *scene) { s.snapshot(cairn.Present, cairn.Present, nil) }, ""},
		{"snapshot with rules is exported", func(s *scene) { s.snapshot(cairn.Present, cairn.Present, ready(), reader) }, "export snapshot snap"},
		{"snapshot half made is not exported", func(s *scene) { s.snapshot(cairn.Present, cairn.Absent, half(), reader) }, "snapshot snap"},
		{"snapshot without its last rule", func(s *scene) {
			s.snapshot(cairn.Present, cairn.Present, ready(), reader)
			s.serveAsWanted()
			s.Snapshots[0].Rules = nil
		}, "unexport snapshot snap"},
		{"snapshot deleted", func(s *scene) { s.snapshot(cairn.Absent, cairn.Present, ready()) }, "delete snapshot snap"},
		{"snapshot deleted, half removed", func(s *scene) { s.snapshot(cairn.Absent, cairn.Present, half()) }, "delete snapshot snap"},
		{"snapshot of others", func(s *scene) { s.foster(cairn.Present, "", nil) }, "adopt snapshot snap"},
		{"snapshot of others, half adopted", func(s *scene) { s.foster(cairn.Present, "", half()) }, "adopt snapshot snap"},
		{"snapshot of others, adopted", func(s *scene) { s.foster(cairn.Present, cairn.Present, ready()) }, ""},
		{"snapshot of others, let go of", func(s *scene) { s.foster(cairn.Released, cairn.Present, ready()) }, "release snapshot snap"},
		{"snapshot of others, half let go of", func(s *scene) { s.foster(cairn.Released, cairn.Present, half()) }, "release snapshot snap"},
		{"snapshot of others, gone", func(s *scene) { s.foster(cairn.Released, cairn.Present, nil) }, ""},
		{"snapshot of others, given up", func(s *scene) { s.foster(cairn.Absent, "", half()) }, "delete snapshot snap"},
		{"snapshot deleted, gone", func(s *scene) { s.snapshot(cairn.Absent, cairn.Present, nil) }, ""},
		{"snapshot deleted while exported", func(s *scene) {
			s.snapshot(cairn.Present, cairn.Present, ready(), reader)
			s.serveAsWanted()
			s.Snapshots[0].Want = cairn.Absent
		}, "unexport snapshot snap"},
		{"unknown snapshot is kept", func(s *scene) { s.Object.Snapshots = []drivers.SnapshotObject{{ID: "x", Ready: true}} }, ""},
		{"unknown half-made snapshot is removed", func(s *scene) { s.Object.Snapshots = []drivers.SnapshotObject{{ID: "x"}} }, "delete snapshot x"},
		{"access comes before slow work", func(s *scene) { s.snapshot(cairn.Present, "", nil); s.Rules = nil }, "export, snapshot snap"},

		{"delete: unexported first", func(s *scene) { s.Replica.Want.Presence = cairn.Absent }, "unexport"},
		{"delete: then its snapshots", func(s *scene) {
			s.snapshot(cairn.Absent, cairn.Present, ready())
			s.Replica.Want.Presence, s.Served = cairn.Absent, nil
		}, "delete snapshot snap"},
		{"delete: also snapshots that nobody knows", func(s *scene) {
			s.Object.Snapshots = []drivers.SnapshotObject{{ID: "x", Ready: true}}
			s.Replica.Want.Presence, s.Served = cairn.Absent, nil
		}, "delete snapshot x"},
		{"delete: then itself", func(s *scene) { s.Replica.Want.Presence, s.Served = cairn.Absent, nil }, "delete"},
		{"delete: half removed", func(s *scene) {
			s.Object = &drivers.Object{ID: "r", Snapshots: []drivers.SnapshotObject{{ID: "x"}}}
			s.Replica.Want.Presence, s.Served = cairn.Absent, nil
		}, "delete"},
		{"delete: gone", func(s *scene) { s.Replica.Want.Presence, s.Object, s.Served = cairn.Absent, nil, nil }, ""},
		{"delete: was missing", func(s *scene) { s.Replica.Want.Presence, s.Object = cairn.Absent, nil }, "unexport"},

		{"release: unexported first", func(s *scene) { s.Replica.Want.Presence = cairn.Released }, "unexport"},
		{"release: then let go", func(s *scene) { s.Replica.Want.Presence, s.Served = cairn.Released, nil }, "release"},
		{"release: never removes snapshots", func(s *scene) {
			s.Object.Snapshots = []drivers.SnapshotObject{{ID: "x", Ready: true}}
			s.Replica.Want.Presence, s.Served = cairn.Released, nil
		}, "release"},
		{"release: takes its own snapshots away", func(s *scene) {
			s.Object.Snapshots = []drivers.SnapshotObject{{ID: SyncPoint{Epoch: 1, Seq: 1, At: time.UnixMilli(1)}.ID(), Ready: true}}
			s.Replica.Want.Presence, s.Served = cairn.Released, nil
		}, "delete snapshot sync-00000001-00000001-000000000001"},
		{"release: done", func(s *scene) { s.Replica.Want.Presence, s.Object, s.Served = cairn.Released, nil, nil }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene()
			tc.spoil(&s)
			steps, err := Plan(s.Want, s.Have)
			if got := render(steps, err); got != tc.want {
				t.Errorf("plan: %q, want %q", got, tc.want)
			}
		})
	}
}

func render(steps []Step, err error) string {
	names := make([]string, len(steps))
	for i, s := range steps {
		names[i] = s.String()
	}
	text := strings.Join(names, ", ")
	for _, sentinel := range cairn.Sentinels() {
		if errors.Is(err, sentinel) {
			return strings.TrimSpace(fmt.Sprintf("%s ! %s", text, sentinel))
		}
	}
	return text
}

// TestPlanServesWithTheWholeSet pins what an export is told.
func TestPlanServesWithTheWholeSet(t *testing.T) {
	s := newScene()
	s.Replica.Want.Size = 40
	s.Served = nil
	steps, err := Plan(s.Want, s.Have)
	if err != nil || len(steps) == 0 || steps[0].Op != OpExport {
		t.Fatalf("plan %v, %v", steps, err)
	}
	got := steps[0].Export
	want := drivers.ExportSpec{
		ID: drivers.ExportID{Replica: "r"}, Share: "s", Root: "/pool/r/data", Staging: "/pool/r/staging",
		Epoch: 2, Size: 40, EnforceSize: true, Rules: s.Rules,
	}
	if !sameExport(got, want) {
		t.Errorf("export %+v\nwant   %+v", got, want)
	}
	s.snapshot(cairn.Present, cairn.Present, ready(), reader)
	steps, _ = Plan(s.Want, s.Have)
	mounted := steps[1].Export
	if !mounted.ReadOnly || mounted.Staging != "" || mounted.Root != "/pool/r/snap" || len(mounted.Rules) != 1 {
		t.Errorf("export of the snapshot %+v: want it read-only, without staging, with its own rules", mounted)
	}
}
