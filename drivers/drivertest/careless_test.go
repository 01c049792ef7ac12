package drivertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// small is the harness of the small pool with one defect. It is the Data of its disks too, and finds them by the names that
// roots carry.
type small struct {
	defect defect
	mu     sync.Mutex
	disks  map[string]*disk
}

func smallHarness(d defect) Harness {
	s := &small{defect: d, disks: make(map[string]*disk)}
	return Harness{New: s.newDisk, Data: s}
}

func (s *small) newDisk(*testing.T) (Storage, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &disk{name: fmt.Sprintf("disk%d:", len(s.disks)), files: make(map[string]string), born: make(map[string]uint64), defect: s.defect}
	s.disks[d.name] = d
	return d, func() {}
}

func (s *small) find(root string) (*disk, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := strings.Index(root, ":") + 1
	return s.disks[root[:at]], root[at:]
}

// Fill implements Data.
func (s *small) Fill(root, seed string) error {
	d, path := s.find(root)
	mark, _, err := d.read(strings.TrimSuffix(path, "/data") + "/mark")
	if err == nil && strings.Contains(mark, `"Sealed":true`) {
		err = errors.New("sealed")
	}
	return errors.Join(err, d.change(func(files map[string]string) {
		if err == nil {
			files[path] = strings.Repeat(seed, 100)
		}
	}))
}

// Fingerprint implements Data.
func (s *small) Fingerprint(root string) (string, error) {
	d, path := s.find(root)
	text, ok, err := d.read(path)
	if err == nil && !ok {
		err = fmt.Errorf("%s: no such root", root)
	}
	return text, err
}

// TestSmallConformance is the control without a defect; with one in the environment it is the child of
// TestConformanceFindsDefects and must fail.
func TestSmallConformance(t *testing.T) {
	Conformance(t, smallHarness(defect(os.Getenv("CAIRN_TEST_DEFECT"))))
}

func TestSmallSweep(t *testing.T) { CrashSweep(t, smallHarness(none)) }

// Each defect must fail the clause that forbids it. A failing test cannot be caught within its process, so each runs in a
// child.
func TestConformanceFindsDefects(t *testing.T) {
	tests := []struct {
		defect defect
		clause string
	}{
		{errorMeansAbsent, "4_absence_is_a_diagnosis"},
		{forgetsEpoch, "8_epochs:_a_lower_one_is_ErrStale"},
		{forgetsEpoch, "8_epochs:_every_call_raises_the_epoch"},
		{neverChecksEpoch, "8_epochs:_a_lower_one_is_ErrStale"},
		{remembersSize, "6_no_hidden_state"},
		{takesForeign, "1_identity:_what_has_no_mark_is_foreign"},
		{adoptsAnySpec, "2_create:_another_specification_is_ErrExists"},
		{forcesDelete, "3_delete:_of_what_is_in_use_is_ErrInUse"},
		{failsOnSecondTime, "3_delete:_of_what_is_absent_succeeds"},
		{deletesNeighbours, "3_delete:_of_what_is_absent_succeeds"},
		{readyBeforeData, "5_the_commit_point_comes_last"},
		{ignoresContext, "7_cancellation:_an_ended_context_changes_nothing"},
		{ignoresContext, "7_cancellation:_a_call_that_hangs_returns"},
		{resizesOverData, "resize:_sets_the_size_and_refuses_to_lose_data"},
		{liveSnapshot, "snapshot:_is_a_point_in_time"},
		{recreatesOnCrash, "snapshot:_create_and_delete_are_idempotent"},
		{cutsSome, "group_snapshot:_all_or_none"},
		{sealsNothing, "seal:_holds_until_it_is_broken"},
		{staysSealed, "seal:_holds_until_it_is_broken"},
		{sendsLive, "send:_what_is_sent_is_what_is_received"},
		{receivesUnsealed, "send:_what_is_sent_is_what_is_received"},
		{ignoresBase, "send:_a_base_that_is_gone_is_said_before_the_first_byte"},
		{deletesSent, "send:_the_snapshot_stays_while_it_is_sent"},
		{neverChanged, "send:_changed_is_0_only_if_nothing_has_changed"},
		{revertsForGood, "revert:_keeps_what_is_newer"},
		{receivesTwice, "receive:_what_is_there_is_not_read_again"},
		{receivesAnything, "receive:_another_base,_or_none,_is_refused"},
		{rollsBack, "receive:_what_has_diverged_is_not_rolled_back"},
		{showsHalf, "receive:_goes_on_where_it_broke_off"},
		{restartsStream, "receive:_goes_on_where_it_broke_off"},
		{forgetsToAbandon, "receive:_what_broke_off_can_be_abandoned"},
	}
	outputs := make(map[defect]string)
	for _, tt := range tests {
		t.Run(string(tt.defect)+" breaks "+tt.clause, func(t *testing.T) {
			if outputs[tt.defect] == "" {
				outputs[tt.defect] = failingChild(t, tt.defect)
			}
			if !strings.Contains(outputs[tt.defect], "--- FAIL: TestSmallConformance/"+tt.clause) {
				t.Errorf("the clause did not fail:\n%s", outputs[tt.defect])
			}
		})
	}
}

func failingChild(t *testing.T, d defect) string {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSmallConformance$", "-test.v")
	child.Env = append(os.Environ(), "CAIRN_TEST_DEFECT="+string(d))
	out, err := child.CombinedOutput()
	if child.ProcessState == nil || child.ProcessState.ExitCode() != 1 {
		t.Fatalf("a pool with the defect passes, or the suite breaks on it: %v\n%s", err, out)
	}
	return string(out)
}

// Each defect that only a crash brings to light must be found by the sweep, for the right reason.
func TestSweepFindsDefects(t *testing.T) {
	tests := []struct {
		defect defect
		want   string
	}{
		{readyBeforeData, "ready"},
		{deletesHalf, "foreign/r1"},
		{forgetsEpoch, "epoch"},
		{neverChecksEpoch, "want cairn.ErrStale"},
		{leaksOnRetry, "scratch"},
		{remembersSize, "after another restart"},
		{deletesNeighbours, "delete: without a crash: r10"},
	}
	for _, tt := range tests {
		t.Run(string(tt.defect), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			report := Sweep(t, smallHarness(tt.defect), seed)
			if !strings.Contains(strings.Join(report.Failures, "\n"), tt.want) {
				t.Errorf("no failure says %q: %d failures\n%s", tt.want, len(report.Failures), strings.Join(report.Failures, "\n"))
			}
		})
	}
}
