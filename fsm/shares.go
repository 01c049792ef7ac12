package fsm

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/cairn-storage/cairn"
)

// Placement says which pool gets a replica, and under which ID.
type Placement struct {
	ID   cairn.ReplicaID
	Pool cairn.PoolID
}

// CreateShare makes a share with its replicas; the first one is active. Status, Fault, Active and CreatedAt of Share are set here. If a share of that
// name exists with the same specification, also while it is being created, its ID is the answer.
//
// With Adopt it manages an existing object of the pool by that name, under the given Task.
type CreateShare struct {
	Share    cairn.Share
	Replicas []Placement
	Adopt    string
	Task     cairn.TaskID
}

// DeleteShare removes a share that has no snapshots. Of one that is being deleted it succeeds.
type DeleteShare struct{ ID cairn.ShareID }

// UpdateShare renames a share and changes its description and metadata. nil leaves a field as it is.
type UpdateShare struct {
	ID             cairn.ShareID
	Name           *string
	Description    *string
	SetMetadata    map[string]string
	RemoveMetadata []string
}

func (*CreateShare) op() Op { return OpCreateShare }
func (c *CreateShare) target() string {
	return string(c.Share.Format) + "/" + string(c.Share.Project) + "/" + c.Share.Name
}

func (*DeleteShare) op() Op           { return OpDeleteShare }
func (c *DeleteShare) target() string { return "share/" + string(c.ID) }

func (*UpdateShare) op() Op           { return OpUpdateShare }
func (c *UpdateShare) target() string { return "share/" + string(c.ID) }

func (c *CreateShare) apply(tx *Tx) (string, error) { return c.create(tx, grants{}) }

// grants is what a command allows beyond the CreateShare that it carries.
type grants struct {
	// fenced: every node that may be asked to take a replica over NFS says whether it can be fenced.
	fenced bool
	// from is the replica whose copy of the source snapshot is sent to another pool; "": it is cloned where it is.
	from cairn.ReplicaID
}

// create makes the share.
func (c *CreateShare) create(tx *Tx, may grants) (string, error) {
	if err := c.check(); err != nil {
		return "", err
	}
	if old := tx.ShareByName(c.Share.Project, c.Share.Format, c.Share.Name); old != nil {
		return string(old.ID), c.matches(tx, old)
	}
	if tx.Share(c.Share.ID) != nil {
		return "", cause(cairn.ErrExists, "share %s: that identifier is taken", c.Share.ID)
	}
	if err := c.checkType(tx, may.fenced); err != nil {
		return "", err
	}
	if err := tx.charge(c.Share.Project, cairn.Limits{Shares: 1}); err != nil {
		return "", err
	}
	row := c.Share
	row.Status, row.Fault, row.Active, row.CreatedAt = "", cairn.Fault{}, c.Replicas[0].ID, tx.meta.At
	if err := become(row.Ref(), &row.Status, cairn.StatusCreating); err != nil {
		return "", err
	}
	put(tx, tx.shares, &row)
	for i, where := range c.Replicas {
		role := cairn.RoleStandby
		if i == 0 {
			role = cairn.RoleActive
		}
		if err := c.place(tx, &row, where, role, may.from); err != nil {
			return "", err
		}
	}
	pool := tx.Pool(c.Replicas[0].Pool)
	if c.Adopt != "" {
		tx.startTask(&row, &cairn.Task{ID: c.Task, Kind: cairn.TaskManage})
		tx.event("share.managing", row.Project, row.Ref(), "share %s (%s) takes over %q in pool %s", row.Name, cairn.FormatSize(row.Size), c.Adopt, tx.poolLabel(pool))
	} else {
		tx.event("share.creating", row.Project, row.Ref(), "share %s (%s) is being created in pool %s", row.Name, cairn.FormatSize(row.Size), tx.poolLabel(pool))
	}
	return string(row.ID), nil
}

// check refuses what is wrong whatever the state is.
func (c *CreateShare) check() error {
	s := &c.Share
	if err := checkID(cairn.KindShare, s.ID); err != nil {
		return err
	}
	if err := cairn.CheckName("project", string(s.Project)); err != nil {
		return err
	}
	if err := cairn.CheckName("share", s.Name); err != nil {
		return err
	}
	if err := checkText("description", s.Description, maxDescription, true); err != nil {
		return err
	}
	if err := checkMetadata(s.Metadata); err != nil {
		return err
	}
	if err := cairn.CheckSize(s.Size); err != nil {
		return fmt.Errorf("share %s: %w", s.Name, err)
	}
	switch {
	case s.Format != cairn.FormatFiles && s.Format != cairn.FormatBlock:
		return cause(cairn.ErrInvalid, "share %s: format %q: want files or block", s.Name, s.Format)
	case (s.Format == cairn.FormatFiles) != (s.Protocol != ""):
		return cause(cairn.ErrInvalid, "share %s: protocol %q: a file share has one and a block share has none", s.Name, s.Protocol)
	case len(c.Replicas) < 1 || len(c.Replicas) > MaxReplicas:
		return cause(cairn.ErrInvalid, "share %s: %d replicas: want 1 to %d", s.Name, len(c.Replicas), MaxReplicas)
	case c.Adopt != "" && len(c.Replicas) > 1:
		return cause(cairn.ErrNotSupported, "share %s: an existing object comes under management with one replica; add others afterwards", s.Name)
	case c.Adopt != "" && s.Source != "":
		return cause(cairn.ErrInvalid, "share %s: cannot come from an existing object and from a snapshot", s.Name)
	}
	if c.Adopt != "" {
		if err := checkID(cairn.KindTask, c.Task); err != nil {
			return err
		}
		if err := checkObjectName(c.Adopt); err != nil {
			return err
		}
	}
	for _, where := range c.Replicas {
		if err := checkID(cairn.KindReplica, where.ID); err != nil {
			return err
		}
	}
	return nil
}

// matches accepts a share of the same name if it is what was asked for, so that a repeated create finds its share.
func (c *CreateShare) matches(tx *Tx, old *cairn.Share) error {
	differs := func(field string, has, asked any) error {
		return cause(cairn.ErrExists, "%s: exists with another %s: %v, not %v", old.Ref(), field, has, asked)
	}
	active, copies := tx.Replica(old.Active), len(slices.Collect(tx.ReplicasOf(old.ID)))
	switch s := &c.Share; {
	case old.Status == cairn.StatusDeleting:
		return cause(cairn.ErrExists, "%s: is being deleted; its name is free when it is gone", old.Ref())
	case old.Type != s.Type:
		return differs("type", old.Type, s.Type)
	case old.Size != s.Size:
		return differs("size", cairn.FormatSize(old.Size), cairn.FormatSize(s.Size))
	case old.Protocol != s.Protocol:
		return differs("protocol", old.Protocol, s.Protocol)
	case old.Source != s.Source:
		return differs("source snapshot", quoted(old.Source), quoted(s.Source))
	case copies != len(c.Replicas):
		return differs("number of replicas", copies, len(c.Replicas))
	case active.Want.Adopt != c.Adopt:
		return differs("managed object", quoted(active.Want.Adopt), quoted(c.Adopt))
	case !maps.Equal(old.Metadata, s.Metadata):
		return cause(cairn.ErrExists, "%s: exists with other metadata", old.Ref())
	}
	return nil
}

func quoted[S ~string](s S) string { return strconv.Quote(string(s)) }

func (c *CreateShare) checkType(tx *Tx, fenced bool) error {
	s, t := &c.Share, tx.Type(c.Share.Type)
	switch {
	case t == nil:
		return missing(cairn.KindType, s.Type)
	case t.Format != s.Format:
		return cause(cairn.ErrInvalid, "share %s: type %s is for format %s, not %s", s.Name, t.Name, t.Format, s.Format)
	case len(c.Replicas) > 1 && t.Replication == cairn.ReplicationNone:
		return cause(cairn.ErrNotSupported, "share %s: type %s does not offer replicas", s.Name, t.Name)
	case needsFence(s, t) && !fenced:
		// The NFS server of a kernel serves on when every process of ours is stopped. See CreateFencedShare.
		return cause(cairn.ErrNotSupported, "share %s: type %s fails over by itself, which nfs shares cannot do safely; use a type with failover = manual", s.Name, t.Name)
	case s.Source != "" && !t.Clone:
		return cause(cairn.ErrNotSupported, "share %s: type %s does not offer shares from snapshots", s.Name, t.Name)
	}
	if s.Source == "" {
		return nil
	}
	snap := tx.Snapshot(s.Source)
	switch {
	case snap == nil:
		return missing(cairn.KindSnapshot, s.Source)
	case snap.Project != s.Project:
		return cause(cairn.ErrInvalid, "share %s: %s belongs to another project", s.Name, snap.Ref())
	case tx.Share(snap.Share).Format != s.Format:
		return cause(cairn.ErrInvalid, "share %s: %s is of another format", s.Name, snap.Ref())
	case snap.Status != cairn.StatusAvailable:
		return cause(cairn.ErrPrecondition, "share %s: %s is %s", s.Name, snap.Ref(), snap.Status)
	case s.Size < snap.Size:
		return cause(cairn.ErrInvalid, "share %s: %s is smaller than %s, which has %s", s.Name, cairn.FormatSize(s.Size), snap.Ref(), cairn.FormatSize(snap.Size))
	}
	return nil
}

// place puts a replica where the command says. Only the active one comes from a snapshot or an existing object; the others
// are fed by it.
func (c *CreateShare) place(tx *Tx, s *cairn.Share, where Placement, role cairn.Role, from cairn.ReplicaID) error {
	want := cairn.ReplicaWant{Presence: cairn.Present, Size: s.Size}
	if role == cairn.RoleStandby {
		return tx.placeReplica(s, where, &cairn.Replica{Role: role, State: cairn.ReplicaOutOfSync, Epoch: 1, Want: want})
	}
	want.Source, want.Adopt = s.Source, c.Adopt
	if s.Source != "" {
		if from == "" {
			origin := tx.instanceIn(s.Source, where.Pool)
			if origin == nil {
				return cause(cairn.ErrPrecondition, "share %s: snapshot %s has no copy in pool %s", s.Name, s.Source, where.Pool)
			}
			from = origin.Replica
		} else if err := tx.sends(s, from, where.Pool); err != nil {
			return err
		}
		want.SourceReplica = from
	}
	return tx.placeReplica(s, where, &cairn.Replica{Role: role, State: cairn.ReplicaActive, Epoch: 1, Want: want})
}

// placeReplica makes the row of a new replica after checking that it may go where the placement says, and takes capacity and
// quota for it.
func (tx *Tx) placeReplica(s *cairn.Share, where Placement, row *cairn.Replica) error {
	pool := tx.Pool(where.Pool)
	if pool == nil {
		return missing(cairn.KindPool, where.Pool)
	}
	if err := tx.fits(s, row, pool); err != nil {
		return err
	}
	if tx.Replica(where.ID) != nil {
		return cause(cairn.ErrExists, "replica %s: that identifier is taken", where.ID)
	}
	for other := range tx.ReplicasOf(s.ID) {
		if other.Node == pool.Node {
			return cause(cairn.ErrPrecondition, "share %s: has a replica on node %s; two on one node protect from nothing", s.Name, tx.Node(pool.Node).Name)
		}
	}
	if err := tx.charge(s.Project, cairn.Limits{Bytes: row.Want.Size}); err != nil {
		return err
	}
	if err := tx.promise(pool, row.Want.Size); err != nil {
		return err
	}
	row.ID, row.Share, row.Node, row.Pool, row.Generation, row.CreatedAt = where.ID, s.ID, pool.Node, pool.ID, 1, tx.meta.At
	row.Have = cairn.ReplicaHave{Presence: cairn.Absent}
	put(tx, tx.replicas, row)
	return nil
}

// fits checks what the pool and its node must be, apart from space.
func (tx *Tx) fits(s *cairn.Share, row *cairn.Replica, pool *cairn.Pool) error {
	t, node, label := tx.Type(s.Type), tx.Node(pool.Node), tx.poolLabel(pool)
	switch {
	case node.State != cairn.NodeUp:
		return cause(cairn.ErrPrecondition, "pool %s: its node is %s", label, node.State)
	case node.Draining:
		return cause(cairn.ErrPrecondition, "pool %s: its node is draining", label)
	case pool.Frozen:
		return cause(cairn.ErrPrecondition, "pool %s: is frozen", label)
	case !pool.Fault.Healthy():
		return cause(cairn.ErrPrecondition, "pool %s: %s", label, pool.Fault.Message)
	case t.Driver != "" && t.Driver != pool.Driver:
		return cause(cairn.ErrNotSupported, "pool %s: has driver %s, but type %s wants %s", label, pool.Driver, t.Name, t.Driver)
	case s.Protocol != "" && !slices.Contains(pool.Protocols, s.Protocol):
		return cause(cairn.ErrNotSupported, "pool %s: does not serve protocol %s", label, s.Protocol)
	case needsFence(s, t) && !slices.Contains(pool.Capabilities, cairn.CapFence):
		return cause(cairn.ErrNotSupported, "pool %s: its node cannot fence its NFS server, which failover = auto of type %s needs; the pool's notes say why", label, t.Name)
	case row.Role == cairn.RoleStandby && tx.Pool(tx.Replica(s.Active).Pool).Driver != pool.Driver:
		return cause(cairn.ErrNotSupported, "pool %s: has driver %s, and the active replica %s; replicas need the same",
			label, pool.Driver, tx.Pool(tx.Replica(s.Active).Pool).Driver)
	}
	for _, need := range []struct {
		by         bool
		capability cairn.Capability
	}{
		{t.Snapshots, cairn.CapSnapshot}, {t.Clone, cairn.CapClone}, {t.Revert, cairn.CapRevert}, {row.Want.Adopt != "", cairn.CapAdopt},
		{t.Replication != cairn.ReplicationNone, cairn.CapReplicate},
	} {
		if need.by && !slices.Contains(pool.Capabilities, need.capability) {
			return cause(cairn.ErrNotSupported, "pool %s: cannot do %s", label, need.capability)
		}
	}
	return nil
}

// instanceIn returns the copy of a snapshot that lies in the pool, or nil.
func (tx *Tx) instanceIn(snapshot cairn.SnapshotID, pool cairn.PoolID) *cairn.SnapshotInstance {
	for i := range tx.InstancesOf(snapshot) {
		if tx.Replica(i.Replica).Pool == pool && i.Have == cairn.Present {
			return i
		}
	}
	return nil
}

func (c *DeleteShare) apply(tx *Tx) (string, error) {
	old := tx.Share(c.ID)
	if old == nil {
		return "", missing(cairn.KindShare, c.ID)
	}
	if task := tx.Task(c.ID); task.Running() {
		return "", tx.busy(old, task)
	}
	if old.Status == cairn.StatusDeleting {
		return string(c.ID), nil
	}
	if err := tx.noSnapshots(old); err != nil {
		return "", err
	}
	row := *old
	if err := become(row.Ref(), &row.Status, cairn.StatusDeleting); err != nil {
		return "", err
	}
	put(tx, tx.shares, &row)
	tx.want(c.ID, func(w *cairn.ReplicaWant) { w.Presence, w.Keep = cairn.Absent, cairn.Keep{} })
	tx.event("share.deleting", row.Project, row.Ref(), "share %s is being deleted", row.Name)
	return string(c.ID), nil
}

func (tx *Tx) noSnapshots(s *cairn.Share) error {
	if n := len(slices.Collect(tx.SnapshotsOf(s.ID))); n > 0 {
		return cause(cairn.ErrInUse, "%s: has %s; delete them first", s.Ref(), plural(n, "snapshot", "snapshots"))
	}
	return nil
}

func (c *UpdateShare) apply(tx *Tx) (string, error) {
	old := tx.Share(c.ID)
	switch {
	case old == nil:
		return "", missing(cairn.KindShare, c.ID)
	case old.Status == cairn.StatusDeleting:
		return "", cause(cairn.ErrPrecondition, "%s: is being deleted", old.Ref())
	}
	row := *old
	if c.Name != nil && *c.Name != old.Name {
		if err := cairn.CheckName("share", *c.Name); err != nil {
			return "", err
		}
		if other := tx.ShareByName(old.Project, old.Format, *c.Name); other != nil {
			return "", cause(cairn.ErrExists, "%s: cannot be renamed: %s exists in project %s", old.Ref(), other.Ref(), old.Project)
		}
		row.Name = *c.Name
		tx.event("share.renamed", row.Project, row.Ref(), "share %s is now %s", old.Name, row.Name)
	}
	if c.Description != nil {
		if err := checkText("description", *c.Description, maxDescription, true); err != nil {
			return "", err
		}
		row.Description = *c.Description
	}
	if len(c.SetMetadata)+len(c.RemoveMetadata) > 0 {
		row.Metadata = make(map[string]string, len(old.Metadata)+len(c.SetMetadata))
		maps.Copy(row.Metadata, old.Metadata)
		maps.DeleteFunc(row.Metadata, func(key, _ string) bool { return slices.Contains(c.RemoveMetadata, key) })
		maps.Copy(row.Metadata, c.SetMetadata)
		if err := checkMetadata(row.Metadata); err != nil {
			return "", err
		}
	}
	put(tx, tx.shares, &row)
	if row.Protocol == cairn.ProtocolNFS && !maps.Equal(row.Metadata, old.Metadata) {
		tx.wake(row.ID)
	}
	return string(c.ID), nil
}
