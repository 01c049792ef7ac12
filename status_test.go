package cairn

import "testing"

// TestLegalStatus spells out the whole table: a transition that is not here is illegal.
func TestLegalStatus(t *testing.T) {
	legal := map[[2]Status]bool{
		{"", StatusCreating}:              true,
		{StatusCreating, StatusAvailable}: true,
		{StatusCreating, StatusDeleting}:  true,
		{StatusAvailable, StatusDeleting}: true,
	}
	all := []Status{"", StatusCreating, StatusAvailable, StatusDeleting, "error"}
	for _, from := range all {
		for _, to := range all {
			if got := from.CanBecome(to); got != legal[[2]Status{from, to}] {
				t.Errorf("%q to %q: %v", from, to, got)
			}
		}
	}
}

// TestRenderedStatus goes through every status, task and health, and names what Manila and Cinder would say.
func TestRenderedStatus(t *testing.T) {
	const none TaskKind = ""
	for _, c := range []struct {
		status         Status
		source         SnapshotID
		task           TaskKind
		manila, broken string
		cinder, error  string
	}{
		{StatusCreating, "", none, "creating", "error", "creating", "error"},
		{StatusCreating, "snap", none, "creating_from_snapshot", "error", "creating", "error"},
		{StatusCreating, "", TaskManage, "manage_starting", "manage_error", "managing", "error_managing"},
		{StatusAvailable, "", none, "available", "error", "available", "error"},
		{StatusAvailable, "snap", none, "available", "error", "available", "error"},
		{StatusAvailable, "", TaskExtend, "extending", "extending_error", "extending", "error_extending"},
		{StatusAvailable, "", TaskShrink, "shrinking", "shrinking_error", "error", "error"},
		{StatusAvailable, "", TaskRevert, "reverting", "reverting_error", "reverting", "error"},
		{StatusDeleting, "", none, "deleting", "error_deleting", "deleting", "error_deleting"},
		{StatusDeleting, "", TaskUnmanage, "unmanage_starting", "unmanage_error", "unmanaging", "error_unmanaging"},
	} {
		for _, healthy := range []bool{true, false} {
			manila, cinder, share := c.manila, c.cinder, &Share{Status: c.status, Source: c.source}
			if !healthy {
				manila, cinder, share.Fault = c.broken, c.error, Fault{Code: FaultExport}
			}
			var task *Task
			if c.task != none {
				task = &Task{Kind: c.task, State: TaskRunning}
			}
			if got := ManilaStatus(share, task); got != manila {
				t.Errorf("%s, task %q, healthy %v: Manila says %q, want %q", c.status, c.task, healthy, got, manila)
			}
			if got := CinderStatus(share, task); got != cinder {
				t.Errorf("%s, task %q, healthy %v: Cinder says %q, want %q", c.status, c.task, healthy, got, cinder)
			}
		}
	}
}

// TestEndedTasksDoNotShow: only a running task is a transitional status.
func TestEndedTasksDoNotShow(t *testing.T) {
	for _, kind := range []TaskKind{TaskExtend, TaskShrink, TaskRevert, TaskManage, TaskUnmanage} {
		for _, state := range []TaskState{TaskSucceeded, TaskFailed, TaskCancelled} {
			task := &Task{Kind: kind, State: state}
			if task.Running() {
				t.Errorf("a task that has %s is running", state)
			}
			for status, want := range map[Status]string{StatusCreating: "creating", StatusAvailable: "available", StatusDeleting: "deleting"} {
				if got := ManilaStatus(&Share{Status: status}, task); got != want {
					t.Errorf("%s after %s %s: %q", status, kind, state, got)
				}
			}
		}
	}
	if (*Task)(nil).Running() {
		t.Error("no task is running")
	}
}

func TestDeniedRules(t *testing.T) {
	for state, want := range map[RuleState]bool{
		RuleQueuedToApply: false, RuleApplying: false, RuleActive: false, RuleQueuedToUpdate: false, RuleUpdating: false, RuleError: false,
		RuleQueuedToDeny: true, RuleDenying: true,
	} {
		if state.Denied() != want {
			t.Errorf("%s: denied is %v", state, !want)
		}
	}
}

func TestSettled(t *testing.T) {
	for _, c := range []struct {
		wanted, answered uint64
		fault            FaultCode
		want             bool
	}{
		{1, 0, "", false}, {2, 1, "", false}, {2, 2, "", true}, {2, 2, FaultExport, false},
	} {
		r := &Replica{Generation: c.wanted, Have: ReplicaHave{Generation: c.answered, Fault: Fault{Code: c.fault}}}
		if r.Settled() != c.want {
			t.Errorf("%+v: settled is %v", c, !c.want)
		}
	}
}
