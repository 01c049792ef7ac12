package fsm

import (
	"fmt"
	"slices"

	"github.com/cairn-storage/cairn"
)

// AllowAccess adds an access rule to a share, or to its snapshot if Rule.Snapshot is set. A rule that exists with the same
// kind, client and level is the answer.
type AllowAccess struct{ Rule cairn.AccessRule }

// DenyAccess takes an access rule away. Its row goes when the node has reported that it is enforced.
type DenyAccess struct{ Rule cairn.RuleID }

// SetAccess makes Rules the whole set of a share or snapshot: adds, removals and changes of level in one step. A rule that
// exists keeps its ID and secret.
type SetAccess struct {
	Share    cairn.ShareID
	Snapshot cairn.SnapshotID
	Rules    []cairn.AccessRule
}

func (*AllowAccess) op() Op { return OpAllowAccess }
func (c *AllowAccess) target() string {
	return accessTarget(c.Rule.Share, c.Rule.Snapshot) + "/" + string(c.Rule.Kind) + "/" + c.Rule.Who
}

func (*DenyAccess) op() Op           { return OpDenyAccess }
func (c *DenyAccess) target() string { return "access/" + string(c.Rule) }

func (*SetAccess) op() Op           { return OpSetAccess }
func (c *SetAccess) target() string { return accessTarget(c.Share, c.Snapshot) }

func accessTarget(share cairn.ShareID, snapshot cairn.SnapshotID) string {
	if snapshot != "" {
		return "snapshot/" + string(snapshot)
	}
	return "share/" + string(share)
}

// accessTo is the share or snapshot whose rules a command changes.
type accessTo struct {
	share    *cairn.Share
	snapshot *cairn.Snapshot // nil for the share itself
}

func (to accessTo) ref() cairn.Ref {
	if to.snapshot != nil {
		return to.snapshot.Ref()
	}
	return to.share.Ref()
}

func (to accessTo) snapshotID() cairn.SnapshotID {
	if to.snapshot != nil {
		return to.snapshot.ID
	}
	return ""
}

// server is the replica that clients reach, and that answers for the rules: the active one, or the first of those that have a
// diverged snapshot.
func (tx *Tx) server(to accessTo) cairn.ReplicaID {
	if to.snapshot != nil && to.snapshot.Diverged {
		if i := first(tx.InstancesOf(to.snapshot.ID)); i != nil {
			return i.Replica
		}
	}
	return to.share.Active
}

// accessTo finds what rules are asked for, and checks that it can have any.
func (tx *Tx) accessTo(share cairn.ShareID, snapshot cairn.SnapshotID) (to accessTo, err error) {
	to.share = tx.Share(share)
	switch {
	case to.share == nil:
		return to, missing(cairn.KindShare, share)
	case to.share.Format != cairn.FormatFiles:
		return to, cause(cairn.ErrNotSupported, "%s: access rules are for file shares", to.share.Ref())
	case to.share.Status == cairn.StatusDeleting:
		return to, cause(cairn.ErrPrecondition, "%s: is being deleted", to.share.Ref())
	case snapshot == "":
		return to, nil
	}
	to.snapshot = tx.Snapshot(snapshot)
	switch {
	case to.snapshot == nil || to.snapshot.Share != share:
		return to, fmt.Errorf("%s: %w", to.share.Ref(), missing(cairn.KindSnapshot, snapshot))
	case to.snapshot.Status == cairn.StatusDeleting:
		return to, cause(cairn.ErrPrecondition, "%s: is being deleted", to.snapshot.Ref())
	case !tx.Type(to.share.Type).MountSnapshots:
		return to, cause(cairn.ErrNotSupported, "%s: type %s does not offer mounted snapshots", to.snapshot.Ref(), to.share.Type)
	}
	return to, nil
}

// takesRules reports whether the node may be handed changes of rules now; else they are queued.
func (tx *Tx) takesRules(to accessTo) bool {
	return to.share.Status == cairn.StatusAvailable && !tx.Task(to.share.ID).Running() &&
		(to.snapshot == nil || to.snapshot.Status == cairn.StatusAvailable)
}

// inFlight says what becomes of a queued change of a rule when it is handed to the node.
var inFlight = map[cairn.RuleState]cairn.RuleState{
	cairn.RuleQueuedToApply:  cairn.RuleApplying,
	cairn.RuleQueuedToUpdate: cairn.RuleUpdating,
	cairn.RuleQueuedToDeny:   cairn.RuleDenying,
}

// handOver hands queued changes of rules to the node if the share takes them now, and reports whether there were any. The
// caller raises the generation.
func (tx *Tx) handOver(s *cairn.Share) (any bool) {
	for _, rule := range slices.Collect(tx.allRulesOf(s.ID)) {
		next, queued := inFlight[rule.State]
		if queued && tx.takesRules(accessTo{s, tx.Snapshot(rule.Snapshot)}) {
			row := *rule
			row.State = next
			put(tx, tx.rules, &row)
			any = true
		}
	}
	return any
}

// setState moves a rule to a queued state, or at once to what that becomes when the share takes changes.
func (tx *Tx) setState(to accessTo, rule *cairn.AccessRule, queued cairn.RuleState) {
	rule.State = queued
	if tx.takesRules(to) {
		rule.State = inFlight[queued]
	}
	put(tx, tx.rules, rule)
}

func (c *AllowAccess) apply(tx *Tx) (string, error) {
	to, err := tx.accessTo(c.Rule.Share, c.Rule.Snapshot)
	if err != nil {
		return "", err
	}
	rule := c.Rule
	if err := checkRule(to, &rule); err != nil {
		return "", err
	}
	old := tx.ruleFor(to, &rule)
	if old != nil && !old.State.Denied() && old.Level != rule.Level {
		return "", cause(cairn.ErrExists, "%s: %s %s has %s; change it with `access set`", to.ref(), rule.Kind, rule.Who, old.Level)
	}
	id, changed, err := tx.grant(to, old, &rule)
	if changed {
		tx.want(to.share.ID, nil)
	}
	return string(id), err
}

// checkRule refuses rules that can never be applied, and brings Who into its canonical form.
func checkRule(to accessTo, r *cairn.AccessRule) error {
	if err := checkID(cairn.KindRule, r.ID); err != nil {
		return err
	}
	switch {
	case r.Level != cairn.AccessRW && r.Level != cairn.AccessRO:
		return cause(cairn.ErrInvalid, "%s: level %q: want rw or ro", to.ref(), r.Level)
	case to.snapshot != nil && r.Level != cairn.AccessRO:
		return cause(cairn.ErrInvalid, "%s: a snapshot can only be read; use level ro", to.ref())
	}
	switch r.Kind {
	case cairn.AccessIP:
		prefix, err := cairn.ParseClient(r.Who)
		if err != nil {
			return fmt.Errorf("%s: %w", to.ref(), err)
		}
		r.Who = canonicalClient(prefix)
		return nil
	case cairn.AccessUser:
		return cairn.CheckName("user", r.Who)
	case cairn.AccessCert:
		if r.Who == "" {
			return cause(cairn.ErrInvalid, "%s: a cert rule needs a common name", to.ref())
		}
		return checkText("common name", r.Who, cairn.MaxNameLength, false)
	}
	return cause(cairn.ErrInvalid, "%s: kind %q: want ip, user or cert", to.ref(), r.Kind)
}

// ruleFor returns the rule of the same target, kind and client, or nil.
func (tx *Tx) ruleFor(to accessTo, r *cairn.AccessRule) *cairn.AccessRule {
	return first(tx.rules.by(rulesByTarget, ruleTargetKey(to.share.ID, to.snapshotID())+string(r.Kind)+"\x00"+r.Who+"\x00"))
}

// grant makes sure that the rule is, or is going to be, enforced. A rule that was denied and is not yet gone comes back
// under its old ID with the new level and secret; one that could not be applied is tried again.
func (tx *Tx) grant(to accessTo, old, rule *cairn.AccessRule) (id cairn.RuleID, changed bool, err error) {
	row := *rule
	switch {
	case old == nil && tx.Rule(rule.ID) != nil:
		return "", false, cause(cairn.ErrExists, "access %s: that identifier is taken", rule.ID)
	case old != nil && !old.State.Denied() && old.State != cairn.RuleError:
		return old.ID, false, nil
	case old != nil && old.State == cairn.RuleError:
		row = *old
	case rule.Kind == cairn.AccessUser && (len(rule.Secret.Salt) == 0 || len(rule.Secret.Hash) == 0):
		return "", false, cause(cairn.ErrInvalid, "%s: a new user rule needs a secret", to.ref())
	case old != nil:
		row.ID, row.CreatedAt = old.ID, old.CreatedAt
	}
	row.Level, row.Share, row.Snapshot = rule.Level, to.share.ID, to.snapshotID()
	if row.Kind != cairn.AccessUser {
		row.Secret = cairn.Secret{}
	}
	if old == nil {
		row.CreatedAt = tx.meta.At
	}
	tx.setState(to, &row, cairn.RuleQueuedToApply)
	tx.accessEvent("access.allowed", to, "%s %s gets %s on %s", row.Kind, row.Who, row.Level, to.ref())
	return row.ID, true, nil
}

func (tx *Tx) accessEvent(kind string, to accessTo, format string, args ...any) {
	tx.event(kind, to.share.Project, to.ref(), format, args...)
}

func (c *DenyAccess) apply(tx *Tx) (string, error) {
	rule := tx.Rule(c.Rule)
	if rule == nil {
		return "", missing(cairn.KindRule, c.Rule)
	}
	if rule.State.Denied() {
		return string(c.Rule), nil
	}
	to, err := tx.accessTo(rule.Share, rule.Snapshot)
	if err != nil {
		return "", err
	}
	tx.deny(to, rule)
	tx.want(to.share.ID, nil)
	return string(c.Rule), nil
}

func (tx *Tx) deny(to accessTo, rule *cairn.AccessRule) {
	row := *rule
	tx.setState(to, &row, cairn.RuleQueuedToDeny)
	tx.accessEvent("access.denied", to, "%s %s loses access to %s", row.Kind, row.Who, to.ref())
}

func (c *SetAccess) apply(tx *Tx) (string, error) {
	to, err := tx.accessTo(c.Share, c.Snapshot)
	if err != nil {
		return "", err
	}
	before := slices.Collect(tx.RulesOf(c.Share, c.Snapshot))
	kept := make(map[cairn.RuleID]bool, len(c.Rules))
	anything := false
	for i := range c.Rules {
		rule := c.Rules[i]
		if err := checkRule(to, &rule); err != nil {
			return "", err
		}
		id, changed, err := tx.setRule(to, &rule)
		if err != nil {
			return "", err
		}
		if kept[id] {
			return "", cause(cairn.ErrInvalid, "%s: %s %s is in the set twice", to.ref(), rule.Kind, rule.Who)
		}
		kept[id] = true
		anything = anything || changed
	}
	for _, rule := range before {
		if !kept[rule.ID] && !rule.State.Denied() {
			tx.deny(to, rule)
			anything = true
		}
	}
	if anything {
		tx.want(c.Share, nil)
	}
	return string(c.Share), nil
}

// setRule grants one rule of a set, or changes its level.
func (tx *Tx) setRule(to accessTo, rule *cairn.AccessRule) (cairn.RuleID, bool, error) {
	old := tx.ruleFor(to, rule)
	if old == nil || old.State.Denied() || old.State == cairn.RuleError || old.Level == rule.Level {
		return tx.grant(to, old, rule)
	}
	row := *old
	row.Level = rule.Level
	switch row.State {
	case cairn.RuleQueuedToApply, cairn.RuleApplying:
		put(tx, tx.rules, &row) // has never been in force: still to be applied, at the new level
	default:
		tx.setState(to, &row, cairn.RuleQueuedToUpdate)
	}
	tx.accessEvent("access.changed", to, "%s %s now gets %s on %s", row.Kind, row.Who, row.Level, to.ref())
	return row.ID, true, nil
}
