package server

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// question is everything that an explanation rests on: a state, the time, and what the nodes said. Explaining is a pure
// function of it.
type question struct {
	view *fsm.View
	now  time.Time
	raft Status
	live map[cairn.ReplicaID]live
	// Of a share that waits for a failover: how far its standbys are, and what the leader says, "" on other nodes.
	sync  map[cairn.ReplicaID]*SyncState
	waits string
}

func (q *question) explain(about subject) *pb.WhyResponse {
	switch {
	case about.share != nil:
		return q.share(about.share)
	case about.snapshot != nil:
		return q.snapshot(about.snapshot)
	case about.replica != nil:
		return q.replica(about.replica)
	case about.node != nil:
		return q.node(about.node)
	}
	return q.pool(about.pool)
}

// facts collects the lines of an answer.
type facts []*pb.WhyLine

func (f *facts) add(topic, format string, args ...any) {
	*f = append(*f, &pb.WhyLine{Topic: topic, Text: fmt.Sprintf(format, args...)})
}

func (f *facts) fault(topic string, q *question, fault cairn.Fault) {
	if !fault.Healthy() {
		f.add(topic, "%s for %s: %s", fault.Code, q.since(fault.At), fault.Message)
	}
}

func (q *question) share(s *cairn.Share) *pb.WhyResponse {
	task, active := q.view.Task(s.ID), q.view.Replica(s.Active)
	var f facts
	f.add("status", "%s (Manila: %s)", s.Status, cairn.ManilaStatus(s, task))
	f.fault("fault", q, s.Fault)
	if task != nil {
		f.add("task", "%s", q.taskText(task))
	}
	q.holders(&f, s)
	q.gates(&f, s)
	waiting := q.waiting(s)
	if reason := q.failover(&f, s); reason != "" {
		return &pb.WhyResponse{Summary: fmt.Sprintf("share %s waits for a failover: %s", s.Name, reason), Lines: f}
	}
	for _, w := range waiting {
		f.add("waiting", "%s", w)
	}
	if s.Status == cairn.StatusAvailable && s.Format == cairn.FormatFiles && len(slices.Collect(q.view.RulesOf(s.ID, ""))) == 0 {
		f.add("access", "nobody may reach it: it has no access rule; see `cairn access allow`")
	}
	return &pb.WhyResponse{Summary: "share " + s.Name + q.shareSummary(s, task, active, waiting), Lines: f}
}

// shareSummary goes on from the share's name.
func (q *question) shareSummary(s *cairn.Share, task *cairn.Task, active *cairn.Replica, waiting []string) string {
	holder := q.holder(active)
	switch {
	case task.Running():
		return fmt.Sprintf(" has been %s for %s: %s", taskVerb[task.Kind], q.since(task.StartedAt), holder)
	case s.Status == cairn.StatusCreating:
		return fmt.Sprintf(" has been creating for %s: %s", q.since(s.CreatedAt), holder)
	case s.Status == cairn.StatusDeleting:
		return " is being deleted: " + holder
	case !s.Fault.Healthy():
		return fmt.Sprintf(" has had a fault for %s (%s): %s", q.since(s.Fault.At), s.Fault.Message, holder)
	case len(waiting) > 0:
		return fmt.Sprintf(" is available and waits for %s: %s", strings.Join(waiting, ", "), holder)
	case task != nil && task.State == cairn.TaskFailed:
		return fmt.Sprintf(" is available; its last task (%s) failed %s ago: %s", task.Kind, q.since(task.EndedAt), task.Fault.Message)
	case active != nil && !active.Settled():
		return " is available, and something new is wanted of it: " + holder
	}
	for r := range q.view.ReplicasOf(s.ID) {
		if r.Role == cairn.RoleStandby && q.live[r.ID].status.LastError != "" {
			return " is available, and a standby is not as it should be: " + q.holder(r)
		}
	}
	return " is available, and nothing is being waited for"
}

var taskVerb = map[cairn.TaskKind]string{
	cairn.TaskExtend: "extending", cairn.TaskShrink: "shrinking", cairn.TaskRevert: "reverting", cairn.TaskManage: "taken under management",
	cairn.TaskUnmanage: "let go of", cairn.TaskPromote: "promoting",
}

func (q *question) taskText(t *cairn.Task) string {
	text := string(t.Kind)
	if t.Size != 0 {
		text += " to " + cairn.FormatSize(t.Size)
	}
	if snap := q.view.Snapshot(t.Snapshot); snap != nil {
		text += " to snapshot " + snap.Name
	}
	if t.Running() {
		text += fmt.Sprintf(", running for %s; it holds the share's lock", q.since(t.StartedAt))
	} else {
		text += fmt.Sprintf(", %s %s ago", t.State, q.since(t.EndedAt))
	}
	if !t.Fault.Healthy() {
		text += ": " + t.Fault.Message
	}
	return text
}

// waiting lists what the share's node still has to do besides the share itself.
func (q *question) waiting(s *cairn.Share) (out []string) {
	for snap := range q.view.SnapshotsOf(s.ID) {
		if snap.Status != cairn.StatusAvailable {
			out = append(out, fmt.Sprintf("snapshot %s (%s)", snap.Name, snap.Status))
		}
	}
	for rule := range q.view.RulesOf(s.ID, "") {
		if rule.State != cairn.RuleActive {
			out = append(out, fmt.Sprintf("access of %s %s (%s)", rule.Kind, rule.Who, rule.State))
		}
	}
	return out
}

// holders adds what is known of each replica of the share and of its actor.
func (q *question) holders(f *facts, s *cairn.Share) {
	for r := range q.view.ReplicasOf(s.ID) {
		q.replicaFacts(f, r)
	}
}

func (q *question) replicaFacts(f *facts, r *cairn.Replica) {
	f.add("replica", "%s in pool %s, wanted %s at generation %d, answered generation %d", r.State, poolName(q.view, r.Pool), r.Want.Presence, r.Generation, r.Have.Generation)
	f.fault("replica fault", q, r.Have.Fault)
	if n := q.view.Node(r.Node); n == nil || n.State != cairn.NodeUp {
		f.add("node", "%s", q.holder(r))
		return
	}
	l := q.live[r.ID]
	switch a := l.status; {
	case l.err != nil:
		f.add("node", "%s does not answer: %v", nodeName(q.view, r.Node), l.err)
	default:
		if a.Step != "" && !a.Since.IsZero() {
			f.add("step", "%s, for %s", a.Step, q.elapsed(a.Since))
		}
		if a.LastError != "" {
			f.add("last error", "%s (%s in a row)", a.LastError, plural(a.Attempts, "failure"))
		}
		if !a.Next.IsZero() {
			f.add("next attempt", "%s", q.in(a.Next))
		}
	}
}

// holder says in words where a replica stands: who has it, what that node does, what went wrong, when it tries again.
func (q *question) holder(r *cairn.Replica) string {
	if r == nil {
		return "no replica of it is known"
	}
	n := q.view.Node(r.Node)
	if n == nil {
		return fmt.Sprintf("node %s, which held it, is not a member of the cluster any more", r.Node)
	}
	if n.State != cairn.NodeUp {
		return fmt.Sprintf("node %s holds it and is %s%s; it goes on when the node is back", n.Name, n.State, q.downFor(n))
	}
	l := q.live[r.ID]
	switch a := l.status; {
	case l.err != nil:
		return fmt.Sprintf("node %s holds it and does not answer now (%v)", n.Name, l.err)
	case !a.Since.IsZero():
		return fmt.Sprintf("node %s has been at it for %s (%s)", n.Name, q.elapsed(a.Since), cmp.Or(a.Step, "looking"))
	case a.LastError != "":
		text := fmt.Sprintf("node %s holds it, the last attempt failed with: %s", n.Name, a.LastError)
		if !a.Next.IsZero() {
			text += "; next attempt " + q.in(a.Next)
		}
		return text
	case a.Queued:
		return fmt.Sprintf("node %s has it in its queue", n.Name)
	case r.Settled():
		return fmt.Sprintf("node %s has done everything that is wanted", n.Name)
	case !r.Have.Fault.Healthy():
		return fmt.Sprintf("node %s reported: %s", n.Name, r.Have.Fault.Message)
	}
	return fmt.Sprintf("node %s has not reported on generation %d yet (last on %d)", n.Name, r.Generation, r.Have.Generation)
}

func (q *question) replica(r *cairn.Replica) *pb.WhyResponse {
	var f facts
	if s := q.view.Share(r.Share); s != nil {
		f.add("share", "%s in project %s, %s", s.Name, s.Project, s.Status)
	}
	q.replicaFacts(&f, r)
	return &pb.WhyResponse{Summary: "replica " + string(r.ID) + ": " + q.holder(r), Lines: f}
}

func (q *question) snapshot(s *cairn.Snapshot) *pb.WhyResponse {
	var f facts
	f.add("status", "%s", s.Status)
	f.fault("fault", q, s.Fault)
	for i := range q.view.InstancesOf(s.ID) {
		if r := q.view.Replica(i.Replica); r != nil {
			f.add("instance", "in pool %s: wanted %s, found %s", poolName(q.view, r.Pool), i.Want, i.Have)
			f.fault("instance fault", q, i.Fault)
		}
	}
	summary := fmt.Sprintf("snapshot %s is %s", s.Name, s.Status)
	share := q.view.Share(s.Share)
	if share == nil {
		return &pb.WhyResponse{Summary: summary, Lines: f}
	}
	f.add("share", "%s, %s", share.Name, share.Status)
	if task := q.view.Task(share.ID); task.Running() {
		f.add("task", "%s", q.taskText(task))
	}
	q.holders(&f, share)
	holder := q.holder(q.view.Replica(share.Active))
	switch {
	case s.Status == cairn.StatusCreating:
		summary = fmt.Sprintf("snapshot %s has been creating for %s: %s", s.Name, q.since(s.CreatedAt), holder)
	case !s.Fault.Healthy():
		summary += fmt.Sprintf(" and has had a fault for %s (%s): %s", q.since(s.Fault.At), s.Fault.Message, holder)
	case s.Status == cairn.StatusDeleting:
		summary = fmt.Sprintf("snapshot %s is being deleted: %s", s.Name, holder)
	default:
		summary += ", and nothing is being waited for"
	}
	return &pb.WhyResponse{Summary: summary, Lines: f}
}

func (q *question) node(n *cairn.Node) *pb.WhyResponse {
	var f facts
	f.add("state", "%s", n.State)
	f.add("raft", "%s", cmp.Or(q.raft.role(n.ID), "not a member"))
	if n.Draining {
		f.add("draining", "takes no new replicas; `cairn node drain --undo %s` allows them again", n.Name)
	}
	for p := range q.view.PoolsOf(n.ID) {
		f.fault("pool "+p.Name, q, p.Fault)
	}
	var served []string
	for _, s := range sharesOn(q.view, n.ID) {
		if r := q.view.Replica(s.Active); r != nil && r.Node == n.ID {
			served = append(served, string(s.Project)+"/"+s.Name)
		}
	}
	if len(served) > 0 {
		f.add("serves", "%s", some(served))
	}
	summary := fmt.Sprintf("node %s is %s%s and serves %s", n.Name, n.State, q.downFor(n), plural(len(served), "share"))
	switch {
	case n.State != cairn.NodeUp && len(served) > 0:
		summary = fmt.Sprintf("node %s is %s%s: its %s cannot be reached until it is back", n.Name, n.State, q.downFor(n), plural(len(served), "share"))
	case n.Draining:
		summary += "; it is draining"
	}
	return &pb.WhyResponse{Summary: summary, Lines: f}
}

func (q *question) pool(p *cairn.Pool) *pb.WhyResponse {
	var f facts
	left := max(0, p.Provisionable()-q.view.Provisioned(p.ID))
	f.add("capacity", "%s of %s may still be promised", cairn.FormatSize(left), cairn.FormatSize(p.Provisionable()))
	f.fault("fault", q, p.Fault)
	var against []string
	n := q.view.Node(p.Node)
	switch {
	case n == nil:
		against = append(against, "its node is not a member any more")
	case n.State != cairn.NodeUp:
		against = append(against, fmt.Sprintf("its node is %s%s", n.State, q.downFor(n)))
	case n.Draining:
		against = append(against, "its node is draining")
	}
	if p.Frozen {
		against = append(against, "it is frozen")
	}
	if !p.Fault.Healthy() {
		against = append(against, "it has a fault: "+p.Fault.Message)
	}
	if left == 0 {
		against = append(against, "all its capacity is promised")
	}
	summary := fmt.Sprintf("pool %s takes new shares", poolName(q.view, p.ID))
	if len(against) > 0 {
		summary = fmt.Sprintf("pool %s takes no new shares: %s", poolName(q.view, p.ID), strings.Join(against, ", "))
	}
	return &pb.WhyResponse{Summary: summary, Lines: f}
}

// downFor is " for 2m0s" of a node whose going down is still in the journal.
func (q *question) downFor(n *cairn.Node) string {
	if n.State == cairn.NodeUp {
		return ""
	}
	if at := q.downAt(n.ID); at != 0 {
		return " for " + q.since(at)
	}
	return ""
}

// downAt is when a node went down last, 0 if no event tells.
func (q *question) downAt(id cairn.NodeID) (at int64) {
	for e := range q.view.Events(0) {
		if e.Kind == "node.down" && e.Ref.ID == string(id) {
			at = e.At
		}
	}
	return at
}

// since is how long ago a time of a row was.
func (q *question) since(at int64) string { return q.elapsed(time.Unix(0, at)) }

func (q *question) elapsed(at time.Time) string {
	if d := q.now.Sub(at).Round(time.Second); d > 0 {
		return d.String()
	}
	return "less than a second"
}

func (q *question) in(at time.Time) string {
	if d := at.Sub(q.now).Round(time.Second); d > 0 {
		return "in " + d.String()
	}
	return "now"
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
