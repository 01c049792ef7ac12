package cairn

// TaskKind is a multi-step operation on a share.
type TaskKind string

// Kinds of task.
const (
	TaskExtend   TaskKind = "extend"
	TaskShrink   TaskKind = "shrink"
	TaskRevert   TaskKind = "revert"
	TaskManage   TaskKind = "manage"
	TaskUnmanage TaskKind = "unmanage"
	TaskPromote  TaskKind = "promote"
)

// TaskState is whether a task still holds the share's lock.
type TaskState string

// States of a task. Only a running task is a lock.
const (
	TaskRunning   TaskState = "running"
	TaskSucceeded TaskState = "succeeded"
	TaskFailed    TaskState = "failed"
	TaskCancelled TaskState = "cancelled"
)

// Task is the newest operation on a share. A share has at most one row, and while it runs, that row is the share's lock.
type Task struct {
	ID       TaskID
	Share    ShareID
	Project  ProjectID
	Kind     TaskKind
	State    TaskState
	Size     int64      // wanted size of extend and shrink
	Snapshot SnapshotID // of revert
	Replica  ReplicaID  // of promote: the one that becomes active
	Fault    Fault      // why it failed, or why it does not get on
	// StartedAt and EndedAt are Unix nanoseconds; EndedAt is 0 while it runs.
	StartedAt int64
	EndedAt   int64
}

// Running reports whether the task holds the lock. A nil task does not.
func (t *Task) Running() bool { return t != nil && t.State == TaskRunning }

// ManilaStatus renders the status string that Manila would show for the share (manila/common/constants.py). task may be
// nil.
func ManilaStatus(s *Share, task *Task) string {
	broken := !s.Fault.Healthy()
	switch s.Status {
	case StatusCreating:
		switch {
		case task.Running() && task.Kind == TaskManage && broken:
			return "manage_error"
		case task.Running() && task.Kind == TaskManage:
			return "manage_starting"
		case broken:
			return "error"
		case s.Source != "":
			return "creating_from_snapshot"
		}
		return "creating"
	case StatusDeleting:
		switch {
		case task.Running() && task.Kind == TaskUnmanage && broken:
			return "unmanage_error"
		case task.Running() && task.Kind == TaskUnmanage:
			return "unmanage_starting"
		case broken:
			return "error_deleting"
		}
		return "deleting"
	}
	if task.Running() {
		if names, ok := manilaTask[task.Kind]; ok {
			if broken {
				return names.broken
			}
			return names.busy
		}
	}
	if broken {
		return "error"
	}
	return "available"
}

// manilaTask names the transitional and the failed status of a task on an available share.
var manilaTask = map[TaskKind]struct{ busy, broken string }{
	TaskExtend: {"extending", "extending_error"},
	TaskShrink: {"shrinking", "shrinking_error"},
	TaskRevert: {"reverting", "reverting_error"},
	// Manila shows it on the replica.
	TaskPromote: {"replication_change", "error"},
}

// CinderStatus renders the status string that Cinder would show for a block share (cinder/objects/fields.py).
func CinderStatus(s *Share, task *Task) string {
	switch status := ManilaStatus(s, task); status {
	case "creating_from_snapshot":
		return "creating"
	case "extending_error":
		return "error_extending"
	case "manage_starting":
		return "managing"
	case "manage_error":
		return "error_managing"
	case "unmanage_starting":
		return "unmanaging"
	case "unmanage_error":
		return "error_unmanaging"
	case "shrinking", "shrinking_error", "reverting_error":
		return "error"
	case "replication_change": // Cinder says so in replication_status only
		return "available"
	default:
		return status
	}
}
