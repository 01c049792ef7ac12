package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type accessService struct {
	pb.UnimplementedAccessServiceServer
	*Server
}

// target is what access rules open: a share, or one of its snapshots.
type target struct {
	share    cairn.ShareID
	snapshot cairn.SnapshotID // "" for the share itself
}

func (c *caller) target(v *fsm.View, t *pb.AccessTarget) (target, error) {
	share, err := c.share(v, t.GetShare(), t.GetProject())
	if err != nil {
		return target{}, err
	}
	if t.GetSnapshot() == "" {
		return target{share: share.ID}, nil
	}
	snap, err := c.snapshot(v, t.GetSnapshot(), string(share.ID), "")
	if err != nil {
		return target{}, err
	}
	return target{share.ID, snap.ID}, nil
}

// password derives the password of a user rule, 160 bits, and the secret that is kept of it. It depends on nothing but the
// cluster's key and the request, so a retry gets the same on any node, though the password itself is stored nowhere.
func (s *Server) password(token string, on target, who string) (string, cairn.Secret) {
	derive := func(purpose string) []byte {
		mac := hmac.New(sha256.New, s.cfg.PasswordKey)
		mac.Write([]byte(strings.Join([]string{purpose, token, string(on.share), string(on.snapshot), who}, "\x00")))
		return mac.Sum(nil)
	}
	password := base32.StdEncoding.EncodeToString(derive("access")[:20])
	return password, cairn.HashSecret(derive("access-salt")[:16], password)
}

// mutationWithToken makes up a token for a caller who sent none: without one, two requests would derive the same password.
func mutationWithToken(m *pb.Mutation) *pb.Mutation {
	if m.GetToken() != "" {
		return m
	}
	return &pb.Mutation{Token: newID(), DryRun: m.GetDryRun()}
}

// AllowAccess is described in the proto file.
func (s *accessService) AllowAccess(ctx context.Context, req *pb.AllowAccessRequest) (*pb.AllowAccessResponse, error) {
	rule, err := parseRule(req.GetKind(), req.GetWho(), req.GetLevel(), req.GetTarget().GetSnapshot() != "")
	if err != nil {
		return nil, err
	}
	caller, mutation := callerOf(ctx), mutationWithToken(req.GetMutation())
	var on target
	var password string
	rule.ID = cairn.RuleID(newID())
	out, err := s.commit(ctx, change{
		mutation: mutation,
		build: func(v *fsm.View) (fsm.Command, error) {
			if on, err = caller.target(v, req.GetTarget()); err != nil {
				return nil, err
			}
			password = s.address(&rule, mutation, on)
			return &fsm.AllowAccess{Rule: rule}, nil
		},
		again: func(string) fsm.Command { return &fsm.AllowAccess{Rule: rule} },
	})
	if err != nil {
		return nil, err
	}
	answer := &pb.AllowAccessResponse{Event: out.view.LastEvent()}
	row := out.view.Rule(cairn.RuleID(out.id))
	switch {
	case row == nil && out.dry:
		rule.CreatedAt = s.at()
		row = &rule
	case row == nil:
		return nil, gone(cairn.KindRule, out.id)
	case row.Secret.Matches(password) && !out.dry:
		answer.Password = &pb.NewPassword{Who: row.Who, Password: password}
	}
	answer.Rule = rulePB(row)
	return answer, nil
}

// address says what the rule is for, and gives a user rule its secret; it returns the password.
func (s *Server) address(rule *cairn.AccessRule, m *pb.Mutation, on target) (password string) {
	rule.Share, rule.Snapshot = on.share, on.snapshot
	if rule.Kind == cairn.AccessUser {
		password, rule.Secret = s.password(m.GetToken(), on, rule.Who)
	}
	return password
}

// DenyAccess is described in the proto file.
func (s *accessService) DenyAccess(ctx context.Context, req *pb.DenyAccessRequest) (*pb.DenyAccessResponse, error) {
	caller := callerOf(ctx)
	who := req.GetWho()
	if req.GetRule() == "" {
		var err error
		if who, err = parseWho(cairn.AccessKind(req.GetKind()), who); err != nil {
			return nil, err
		}
	}
	out, err := s.commit(ctx, change{
		mutation: req.GetMutation(),
		build: func(v *fsm.View) (fsm.Command, error) {
			on, err := caller.target(v, req.GetTarget())
			if err != nil {
				return nil, err
			}
			rule := findRule(v, on, req.GetRule(), req.GetKind(), who)
			if rule == nil {
				return nil, fmt.Errorf("access rule %s: is not there: %w", shown(strings.TrimSpace(req.GetRule()+" "+req.GetKind()+" "+who)), cairn.ErrNotFound)
			}
			return &fsm.DenyAccess{Rule: rule.ID}, nil
		},
		again: func(id string) fsm.Command { return &fsm.DenyAccess{Rule: cairn.RuleID(id)} },
	})
	if err != nil {
		return nil, err
	}
	return &pb.DenyAccessResponse{Id: out.id, Event: out.view.LastEvent()}, nil
}

func findRule(v *fsm.View, on target, id, kind, who string) *cairn.AccessRule {
	for rule := range v.RulesOf(on.share, on.snapshot) {
		if id != "" && string(rule.ID) == id || id == "" && string(rule.Kind) == kind && rule.Who == who {
			return rule
		}
	}
	return nil
}

// SetAccess is described in the proto file.
func (s *accessService) SetAccess(ctx context.Context, req *pb.SetAccessRequest) (*pb.SetAccessResponse, error) {
	rules, err := parseRules(req)
	if err != nil {
		return nil, err
	}
	caller, mutation := callerOf(ctx), mutationWithToken(req.GetMutation())
	var on target
	passwords := map[string]string{}
	out, err := s.commit(ctx, change{
		mutation: mutation,
		build: func(v *fsm.View) (fsm.Command, error) {
			if on, err = caller.target(v, req.GetTarget()); err != nil {
				return nil, err
			}
			for i := range rules {
				if password := s.address(&rules[i], mutation, on); password != "" {
					passwords[rules[i].Who] = password
				}
			}
			return &fsm.SetAccess{Share: on.share, Snapshot: on.snapshot, Rules: rules}, nil
		},
		again: func(string) fsm.Command { return &fsm.SetAccess{Share: on.share, Snapshot: on.snapshot} },
	})
	if err != nil {
		return nil, err
	}
	answer := &pb.SetAccessResponse{Event: out.view.LastEvent()}
	if out.dry {
		answer.Rules = wouldBe(out.view, on, rules)
		return answer, nil
	}
	answer.Rules = rulesPB(out.view, on.share, on.snapshot)
	for row := range out.view.RulesOf(on.share, on.snapshot) {
		if password := passwords[row.Who]; row.Kind == cairn.AccessUser && row.Secret.Matches(password) {
			answer.Passwords = append(answer.Passwords, &pb.NewPassword{Who: row.Who, Password: password})
		}
	}
	return answer, nil
}

func parseRules(req *pb.SetAccessRequest) ([]cairn.AccessRule, error) {
	if len(req.GetRules()) > maxRules {
		return nil, fmt.Errorf("access: %d rules, at most %d are allowed: %w", len(req.GetRules()), maxRules, cairn.ErrInvalid)
	}
	rules := make([]cairn.AccessRule, 0, len(req.GetRules()))
	for _, r := range req.GetRules() {
		rule, err := parseRule(r.GetKind(), r.GetWho(), r.GetLevel(), req.GetTarget().GetSnapshot() != "")
		if err != nil {
			return nil, err
		}
		rule.ID = cairn.RuleID(newID())
		rules = append(rules, rule)
	}
	return rules, nil
}

// wouldBe is the set as a dry run of SetAccess leaves it: rules that stay keep their ID.
func wouldBe(v *fsm.View, on target, rules []cairn.AccessRule) []*pb.AccessRule {
	var out []*pb.AccessRule
	for i := range rules {
		answer := rulePB(&rules[i])
		if old := findRule(v, on, "", string(rules[i].Kind), rules[i].Who); old != nil {
			answer.Id, answer.State, answer.CreatedAt = string(old.ID), string(old.State), timestamp(old.CreatedAt)
		}
		out = append(out, answer)
	}
	return out
}

// ListAccess is described in the proto file.
func (s *accessService) ListAccess(ctx context.Context, req *pb.ListAccessRequest) (*pb.ListAccessResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	on, err := callerOf(ctx).target(v, req.GetTarget())
	if err != nil {
		return nil, err
	}
	return &pb.ListAccessResponse{Rules: rulesPB(v, on.share, on.snapshot)}, nil
}
