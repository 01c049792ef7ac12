package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/placement"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// creation is a share that is being asked for: what CreateShare and ManageShare have in common.
type creation struct {
	caller *caller
	share  cairn.Share // with what does not depend on the state
	source string      // ID of a snapshot, or ""
	zone   string
	pool   string // "node/pool" of the object to manage, or ""
	adopt  string // that object
	copies int
	task   cairn.TaskID
	// unplaced: the state had a share of that name, so no place was looked for.
	unplaced bool
	// fenced: it is served over NFS and fails over by itself, perhaps with a service address.
	fenced  bool
	address string
	// from is the replica that sends the snapshot; "": the share is cloned from it.
	from cairn.ReplicaID
}

// CreateShare is described in the proto file.
func (s *shareService) CreateShare(ctx context.Context, req *pb.CreateShareRequest) (*pb.CreateShareResponse, error) {
	c := &creation{caller: callerOf(ctx), source: req.GetSourceSnapshot(), zone: req.GetZone(), copies: max(1, int(req.GetReplicas()))}
	if req.GetReplicas() < 0 || req.GetReplicas() > fsm.MaxReplicas {
		return nil, fmt.Errorf("replicas %d: want 1 to %d: %w", req.GetReplicas(), fsm.MaxReplicas, cairn.ErrInvalid)
	}
	if c.address = req.GetServiceAddress(); c.address != "" { // it is of the network, and not of a project
		if err := authorise(c.caller.user, pb.ShareService_SetServiceAddress_FullMethodName); err != nil {
			return nil, err
		}
	}
	c.share = cairn.Share{Name: req.GetName(), Description: req.GetDescription(), Size: req.GetSize(), Type: req.GetType(), Metadata: req.GetMetadata()}
	if err := c.check(req.GetProject(), req.GetProtocol()); err != nil {
		return nil, err
	}
	out, err := s.create(ctx, req.GetMutation(), c)
	if err != nil {
		return nil, err
	}
	share, err := s.created(out)
	if err != nil {
		return nil, err
	}
	return &pb.CreateShareResponse{Share: share, Existed: !out.replayed && out.id != string(c.share.ID), Event: out.view.LastEvent()}, nil
}

// ManageShare is described in the proto file.
func (s *shareService) ManageShare(ctx context.Context, req *pb.ManageShareRequest) (*pb.ManageShareResponse, error) {
	c := &creation{caller: callerOf(ctx), pool: req.GetNode() + "/" + req.GetPool(), adopt: req.GetObject(), task: cairn.TaskID(newID()), copies: 1}
	c.share = cairn.Share{Name: req.GetName(), Size: req.GetSize(), Type: req.GetType()}
	if err := checkObject(c.adopt); err != nil {
		return nil, err
	}
	if err := c.check(req.GetProject(), req.GetProtocol()); err != nil {
		return nil, err
	}
	out, err := s.create(ctx, req.GetMutation(), c)
	if err != nil {
		return nil, err
	}
	share, err := s.created(out)
	if err != nil {
		return nil, err
	}
	return &pb.ManageShareResponse{Share: share, Event: out.view.LastEvent()}, nil
}

// check refuses what is wrong whatever the state is, and fills in what the caller left out.
func (c *creation) check(project, protocol string) (err error) {
	if c.share.Project, err = c.caller.project(project); err != nil {
		return err
	}
	if err := checkName(cairn.KindShare, c.share.Name); err != nil {
		return err
	}
	if c.source != "" && !isID(c.source) {
		return fmt.Errorf("source snapshot %s: want the ID of a snapshot: %w", shown(c.source), cairn.ErrInvalid)
	}
	if c.source == "" || c.share.Size != 0 {
		if err := cairn.CheckSize(c.share.Size); err != nil {
			return err
		}
	}
	if protocol != "" || c.source == "" {
		if c.share.Protocol, err = parseProtocol(protocol); err != nil {
			return err
		}
	}
	if err := checkDescription(c.share.Description); err != nil {
		return err
	}
	c.share.ID = cairn.ShareID(newID())
	return checkMetadata(c.share.Metadata)
}

func (s *Server) create(ctx context.Context, m *pb.Mutation, c *creation) (outcome, error) {
	out, err := s.commit(ctx, change{
		mutation: m,
		own: func(v *fsm.View) (fsm.Command, error) {
			cmd, err := s.plan(v, c)
			if err == nil && c.unplaced { // the share that is there may be gone
				err = errOldCopy
			}
			return cmd, err
		},
		build: func(v *fsm.View) (fsm.Command, error) { return s.plan(v, c) },
		again: func(string) fsm.Command {
			share := c.share
			if share.Format == "" {
				share.Format = cairn.FormatFiles
			}
			return c.command(share, make([]cairn.PoolID, c.copies))
		},
	})
	if c.unplaced && errors.Is(err, cairn.ErrNotFound) {
		return out, fmt.Errorf("share %s: another one of that name was deleted at the same time; try again: %w", c.share.Name, cairn.ErrBusy)
	}
	return out, err
}

// errOldCopy asks for a linearizable state.
var errOldCopy = errors.New("the node's own copy may be old")

func (c *creation) command(share cairn.Share, pools []cairn.PoolID) fsm.Command {
	cmd := &fsm.CreateShare{Share: share, Adopt: c.adopt, Task: c.task}
	for _, pool := range pools {
		cmd.Replicas = append(cmd.Replicas, fsm.Placement{ID: cairn.ReplicaID(newID()), Pool: pool})
	}
	fenced := fsm.CreateFencedShare{Create: *cmd, Address: c.address}
	switch {
	case c.source != "": // the same however it is placed: a token is for one command
		return &fsm.CreateFromSnapshot{Create: fenced, From: c.from}
	case c.fenced:
		return &fenced
	}
	return cmd
}

// plan fills in what the state knows, and places the share. A share of that name that exists needs no place: package fsm
// says whether it is the same.
func (s *Server) plan(v *fsm.View, c *creation) (fsm.Command, error) {
	share, req := c.share, placement.Request{Zone: c.zone}
	if c.from = ""; c.source != "" {
		if err := c.fromSnapshot(v, &share); err != nil {
			return nil, err
		}
	}
	if share.Type == "" {
		share.Type = cairn.DefaultType
	}
	kind := v.Type(share.Type)
	if kind == nil {
		return nil, fmt.Errorf("type %s: %w", shown(share.Type), cairn.ErrNotFound)
	}
	if share.Format = kind.Format; share.Format == cairn.FormatBlock {
		share.Protocol = ""
	}
	c.share.Format = share.Format
	if _, err := cairn.ParseSquash(share.Protocol, share.Metadata); err != nil {
		return nil, err
	}
	c.fenced = share.Protocol == cairn.ProtocolNFS && kind.Failover == cairn.FailoverAuto
	if c.address != "" && !c.fenced {
		return nil, fmt.Errorf("service address %s: is for a share over nfs whose type fails over by itself (failover = auto): %w", shown(c.address), cairn.ErrNotSupported)
	}
	if c.unplaced = v.ShareByName(share.Project, share.Format, share.Name) != nil; c.unplaced {
		return c.command(share, make([]cairn.PoolID, c.copies)), nil
	}
	if c.adopt != "" {
		pool, err := findPool(v, c.pool)
		if err != nil {
			return nil, err
		}
		req.Pool, req.Needs = pool.ID, []cairn.Capability{cairn.CapAdopt}
	}
	req.Size, req.Format, req.Protocol, req.Type = share.Size, share.Format, share.Protocol, kind
	pools, err := s.place(req, v, c)
	if err != nil {
		return nil, err
	}
	return c.command(share, pools), nil
}

// place finds the pools. What comes from a snapshot is cloned in a pool that has it, for that costs nothing; if none of these
// takes it, the snapshot is sent to another one of the same driver.
func (s *Server) place(req placement.Request, v *fsm.View, c *creation) ([]cairn.PoolID, error) {
	if c.source == "" {
		return s.placeAll(req, v, c.copies)
	}
	var refusal error
	var sender *cairn.Replica
	for instance := range v.InstancesOf(cairn.SnapshotID(c.source)) {
		home := v.Replica(instance.Replica)
		if home == nil || instance.Have != cairn.Present || instance.Want != cairn.Present {
			continue
		}
		clone := req
		clone.Pool, clone.Needs = home.Pool, []cairn.Capability{cairn.CapClone}
		pools, err := s.placeAll(clone, v, c.copies)
		if err == nil {
			return pools, nil
		}
		refusal = cmp.Or(refusal, err)
		if node := v.Node(home.Node); sender == nil && node != nil && node.State == cairn.NodeUp {
			sender = home
		}
	}
	if sender == nil {
		return nil, cmp.Or(refusal, fmt.Errorf("snapshot %s: is on no pool yet: %w", c.source, cairn.ErrPrecondition))
	}
	req.Driver, req.Needs = v.Pool(sender.Pool).Driver, []cairn.Capability{cairn.CapReplicate}
	pools, err := s.placeAll(req, v, c.copies)
	if err != nil {
		return nil, err
	}
	c.from = sender.ID
	return pools, nil
}

// placeAll places the active replica, and then each other one apart from those before it. Only the first one is bound to
// the pool of a source.
func (s *Server) placeAll(req placement.Request, v *fsm.View, copies int) ([]cairn.PoolID, error) {
	candidates := s.candidates(v)
	var pools []cairn.PoolID
	for range copies {
		pool, _, err := placement.Place(req, candidates)
		if err != nil {
			return nil, fmt.Errorf("replica %d of %d: %w", len(pools)+1, copies, err)
		}
		pools = append(pools, pool.ID)
		req.Pool, req.Needs, req.Driver = "", nil, pool.Driver
		req.Apart = append(req.Apart, pool.Node)
	}
	return pools, nil
}

func (s *Server) candidates(v *fsm.View) []placement.Candidate {
	return placement.Candidates(v, s.cfg.PoolFree, s.census.Leaders(v))
}

// fromSnapshot takes over what the caller left out from the snapshot and its share.
func (c *creation) fromSnapshot(v *fsm.View, share *cairn.Share) error {
	snap, err := c.caller.snapshot(v, c.source, "", "")
	if err != nil {
		return err
	}
	origin := v.Share(snap.Share)
	share.Source = snap.ID
	if share.Size == 0 {
		share.Size = snap.Size
	}
	if share.Size < snap.Size {
		return fmt.Errorf("size %s: is smaller than snapshot %s, which has %s: %w",
			cairn.FormatSize(share.Size), snap.Name, cairn.FormatSize(snap.Size), cairn.ErrInvalid)
	}
	if share.Type == "" {
		share.Type = origin.Type
	}
	if share.Protocol == "" {
		share.Protocol = origin.Protocol
	}
	return nil
}

// created renders the new share; of a dry run, as it would be.
func (s *Server) created(out outcome) (*pb.Share, error) {
	if !out.dry || out.view.Share(cairn.ShareID(out.id)) != nil {
		return storedShare(out.view, out.id)
	}
	cmd, address := creationOf(out.cmd)
	share := cmd.Share
	share.Status, share.CreatedAt = cairn.StatusCreating, s.at()
	var task *cairn.Task
	if cmd.Adopt != "" {
		task = &cairn.Task{ID: cmd.Task, Share: share.ID, Kind: cairn.TaskManage, State: cairn.TaskRunning, StartedAt: share.CreatedAt}
	}
	answer := sharePB(out.view, &share, task)
	answer.ServiceAddress = address
	state := cairn.ReplicaActive
	for _, where := range cmd.Replicas {
		node, pool := where.Pool.Split()
		answer.Replicas = append(answer.Replicas, &pb.Replica{Id: string(where.ID), Node: nodeName(out.view, node), Pool: pool, State: string(state)})
		state = cairn.ReplicaOutOfSync
	}
	return answer, nil
}

func creationOf(c fsm.Command) (create *fsm.CreateShare, address string) {
	switch c := c.(type) {
	case *fsm.CreateFromSnapshot:
		return &c.Create.Create, c.Create.Address
	case *fsm.CreateFencedShare:
		return &c.Create, c.Address
	}
	return c.(*fsm.CreateShare), ""
}
