package server

import (
	"context"
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
	task   cairn.TaskID
}

// CreateShare is described in the proto file.
func (s *shareService) CreateShare(ctx context.Context, req *pb.CreateShareRequest) (*pb.CreateShareResponse, error) {
	c := &creation{caller: callerOf(ctx), source: req.GetSourceSnapshot(), zone: req.GetZone()}
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
	c := &creation{caller: callerOf(ctx), pool: req.GetNode() + "/" + req.GetPool(), adopt: req.GetObject(), task: cairn.TaskID(newID())}
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
	return s.commit(ctx, change{
		mutation: m,
		ownCopy:  true,
		build:    func(v *fsm.View) (fsm.Command, error) { return s.plan(v, c) },
		again: func(string) fsm.Command {
			share := c.share
			if share.Format == "" {
				share.Format = cairn.FormatFiles
			}
			return c.command(share, "")
		},
	})
}

func (c *creation) command(share cairn.Share, pool cairn.PoolID) *fsm.CreateShare {
	where := fsm.Placement{ID: cairn.ReplicaID(newID()), Pool: pool}
	return &fsm.CreateShare{Share: share, Replicas: []fsm.Placement{where}, Adopt: c.adopt, Task: c.task}
}

// plan fills in what the state knows, and places the share. A share of that name that exists needs no place: package fsm
// says whether it is the same.
func (s *Server) plan(v *fsm.View, c *creation) (fsm.Command, error) {
	share, req := c.share, placement.Request{Zone: c.zone}
	if c.source != "" {
		pool, err := c.fromSnapshot(v, &share)
		if err != nil {
			return nil, err
		}
		req.Pool, req.Needs = pool, []cairn.Capability{cairn.CapClone}
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
	if v.ShareByName(share.Project, share.Format, share.Name) != nil {
		return c.command(share, ""), nil
	}
	if c.adopt != "" {
		pool, err := findPool(v, c.pool)
		if err != nil {
			return nil, err
		}
		req.Pool, req.Needs = pool.ID, []cairn.Capability{cairn.CapAdopt}
	}
	req.Size, req.Format, req.Protocol, req.Type = share.Size, share.Format, share.Protocol, kind
	pool, _, err := placement.Place(req, s.candidates(v))
	if err != nil {
		return nil, err
	}
	return c.command(share, pool.ID), nil
}

func (s *Server) candidates(v *fsm.View) []placement.Candidate {
	return placement.Candidates(v, s.cfg.PoolFree, s.census.Leaders(v))
}

// fromSnapshot takes over what the caller left out from the snapshot and its share, and returns the pool where the snapshot
// lies: a clone is made in place.
func (c *creation) fromSnapshot(v *fsm.View, share *cairn.Share) (cairn.PoolID, error) {
	snap, err := c.caller.snapshot(v, c.source, "", "")
	if err != nil {
		return "", err
	}
	origin := v.Share(snap.Share)
	share.Source = snap.ID
	if share.Size == 0 {
		share.Size = snap.Size
	}
	if share.Size < snap.Size {
		return "", fmt.Errorf("size %s: is smaller than snapshot %s, which has %s: %w",
			cairn.FormatSize(share.Size), snap.Name, cairn.FormatSize(snap.Size), cairn.ErrInvalid)
	}
	if share.Type == "" {
		share.Type = origin.Type
	}
	if share.Protocol == "" {
		share.Protocol = origin.Protocol
	}
	for instance := range v.InstancesOf(snap.ID) {
		if replica := v.Replica(instance.Replica); instance.Have == cairn.Present && replica != nil {
			return replica.Pool, nil
		}
	}
	return "", fmt.Errorf("snapshot %s: is %s and on no pool yet: %w", snap.Name, snap.Status, cairn.ErrPrecondition)
}

// created renders the new share; of a dry run, as it would be.
func (s *Server) created(out outcome) (*pb.Share, error) {
	if !out.dry || out.view.Share(cairn.ShareID(out.id)) != nil {
		return storedShare(out.view, out.id)
	}
	cmd := out.cmd.(*fsm.CreateShare)
	share, where := cmd.Share, cmd.Replicas[0]
	share.Status, share.CreatedAt = cairn.StatusCreating, s.at()
	var task *cairn.Task
	if cmd.Adopt != "" {
		task = &cairn.Task{ID: cmd.Task, Share: share.ID, Kind: cairn.TaskManage, State: cairn.TaskRunning, StartedAt: share.CreatedAt}
	}
	answer := sharePB(out.view, &share, task)
	node, pool := where.Pool.Split()
	answer.Replicas = []*pb.Replica{{Id: string(where.ID), Node: nodeName(out.view, node), Pool: pool, State: string(cairn.ReplicaActive)}}
	return answer, nil
}
