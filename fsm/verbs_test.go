package fsm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cairn-storage/cairn"
)

// verbs is the language of the stories. Identifiers are made from names: share backups is s-backups with replica r-backups.
var verbs = map[string]func(*story, *args) Command{
	"init": func(s *story, a *args) Command {
		return &InitCluster{
			Cluster: cairn.Cluster{ID: cairn.ClusterID(a.value("id", "c1")), Name: a.at(0), CAFingerprint: "ab"},
			Admin:   cairn.User{Name: a.value("admin", "alice"), Role: cairn.UserRole(a.value("role", "admin")), Serial: "01"},
		}
	},
	"checkpoint": func(s *story, a *args) Command {
		c := &Checkpoint{PrevIndex: uint64(a.number("prev")), PrevDigest: uint64(a.number("digest"))}
		if a.flag("honest") {
			c.PrevIndex, c.PrevDigest = s.m.LastCheckpoint()
		}
		return c
	},
	"token": func(s *story, a *args) Command {
		return &CreateJoinToken{cairn.JoinToken{
			ID: cairn.TokenID(a.at(0)), Node: cairn.NodeID(a.at(1)), Name: a.value("name", a.at(1)),
			SecretHash: hashOf(a.value("secret", "sesame")), ExpiresAt: a.number("expires") * second,
		}}
	},
	"use-token": func(s *story, a *args) Command {
		return &ConsumeJoinToken{cairn.TokenID(a.at(0)), hashOf(a.value("secret", "sesame")), hashOf(a.value("key", "key"))}
	},
	"delete-token": func(s *story, a *args) Command { return &DeleteJoinToken{cairn.TokenID(a.at(0))} },
	"node": func(s *story, a *args) Command {
		return &RegisterNode{cairn.Node{
			ID: cairn.NodeID(a.at(0)), Name: a.value("name", a.at(0)), Address: a.value("address", a.at(0)+":7451"),
			HTTPAddress: a.at(0) + ":7452", Zone: a.value("zone", ""), CommandVersion: uint32(a.size(a.value("version", "1"))),
		}}
	},
	"node-state": func(s *story, a *args) Command {
		return &SetNodeState{cairn.NodeID(a.at(0)), cairn.NodeState(a.at(1))}
	},
	"drain":       func(s *story, a *args) Command { return &DrainNode{cairn.NodeID(a.at(0)), true} },
	"undrain":     func(s *story, a *args) Command { return &DrainNode{cairn.NodeID(a.at(0)), false} },
	"remove-node": func(s *story, a *args) Command { return &RemoveNode{cairn.NodeID(a.at(0)), a.flag("force")} },
	"pools":       (*story).pools,
	"freeze":      func(s *story, a *args) Command { return &FreezePool{cairn.PoolID(a.at(0)), true} },
	"thaw":        func(s *story, a *args) Command { return &FreezePool{cairn.PoolID(a.at(0)), false} },
	"create-user": func(s *story, a *args) Command {
		return &CreateUser{cairn.User{
			Name: a.at(0), Role: cairn.UserRole(a.at(1)), Project: cairn.ProjectID(a.value("project", "")), Serial: a.value("serial", "02"),
		}}
	},
	"delete-user": func(s *story, a *args) Command { return &DeleteUser{a.at(0)} },
	"create-type": func(s *story, a *args) Command {
		return &CreateType{cairn.ShareType{
			Name: a.at(0), Format: cairn.Format(a.value("format", "files")), Driver: a.value("driver", ""),
			Replication: cairn.ReplicationType(a.value("replication", "")), Failover: cairn.FailoverPolicy(a.value("failover", "")),
			MaxRPO:    a.number("max-rpo") * second,
			Snapshots: a.flag("snapshots"), Clone: a.flag("clone"), Revert: a.flag("revert"), MountSnapshots: a.flag("mount"),
			Specs: a.under("spec"),
		}}
	},
	"delete-type": func(s *story, a *args) Command { return &DeleteType{a.at(0)} },
	"set-quota": func(s *story, a *args) Command {
		return &SetQuota{cairn.Quota{Project: cairn.ProjectID(a.at(0)), Limits: cairn.Limits{
			Shares: a.size(a.value("shares", "-1")), Bytes: a.size(a.value("bytes", "-1")),
			Snapshots: a.size(a.value("snapshots", "-1")), SnapshotBytes: a.size(a.value("snapshot-bytes", "-1")),
		}}}
	},
	"change-quota": func(s *story, a *args) Command {
		limit := func(key string) *int64 {
			text := a.value(key, "")
			if text == "" {
				return nil
			}
			n := a.size(text)
			return &n
		}
		return &ChangeQuota{cairn.ProjectID(a.at(0)), limit("shares"), limit("bytes"), limit("snapshots"), limit("snapshot-bytes")}
	},
	"create-share": (*story).createShare,
	"create-fenced": func(s *story, a *args) Command {
		address := a.value("address", "")
		return &CreateFencedShare{Create: *s.createShare(a).(*CreateShare), Address: address}
	},
	"create-from": func(s *story, a *args) Command {
		from, address := cairn.ReplicaID(a.value("from", "")), a.value("address", "")
		return &CreateFromSnapshot{CreateFencedShare{*s.createShare(a).(*CreateShare), address}, from}
	},
	"set-address": func(s *story, a *args) Command {
		return &SetServiceAddress{cairn.ShareID(a.at(0)), a.value("to", "")}
	},
	"delete-share": func(s *story, a *args) Command { return &DeleteShare{cairn.ShareID(a.at(0))} },
	"resize": func(s *story, a *args) Command {
		return &ResizeShare{cairn.ShareID(a.at(0)), a.size(a.at(1)), s.task(a)}
	},
	"extend": func(s *story, a *args) Command {
		return &SetSize{cairn.ShareID(a.at(0)), cairn.TaskExtend, a.size(a.at(1)), s.task(a)}
	},
	"shrink": func(s *story, a *args) Command {
		return &SetSize{cairn.ShareID(a.at(0)), cairn.TaskShrink, a.size(a.at(1)), s.task(a)}
	},
	"revert": func(s *story, a *args) Command {
		return &RevertShare{cairn.ShareID(a.at(0)), cairn.SnapshotID(a.at(1)), s.task(a)}
	},
	"update": func(s *story, a *args) Command {
		c := &UpdateShare{ID: cairn.ShareID(a.at(0)), SetMetadata: a.under("set")}
		if name, ok := a.named["name"]; ok {
			c.Name = &name
			delete(a.named, "name")
		}
		if text, ok := a.named["description"]; ok {
			c.Description = &text
			delete(a.named, "description")
		}
		if key := a.value("remove", ""); key != "" {
			c.RemoveMetadata = strings.Split(key, ",")
		}
		return c
	},
	"unmanage": func(s *story, a *args) Command {
		return &UnmanageShare{cairn.ShareID(a.at(0)), s.task(a), a.value("release", "left-behind")}
	},
	"cancel": func(s *story, a *args) Command { return &CancelTask{cairn.ShareID(a.at(0))} },
	"stop": func(s *story, a *args) Command {
		return &StopTask{cairn.ShareID(a.at(0)), cairn.TaskID(a.at(1))}
	},
	"create-snapshot": func(s *story, a *args) Command {
		return &CreateSnapshot{cairn.Snapshot{
			ID: cairn.SnapshotID(a.value("id", "p-"+a.at(1))), Share: cairn.ShareID(a.at(0)), Name: a.at(1), Metadata: a.under("meta"),
		}}
	},
	"manage-snapshot": func(s *story, a *args) Command {
		return &ManageSnapshot{cairn.Snapshot{
			ID: cairn.SnapshotID(a.value("id", "p-"+a.at(1))), Share: cairn.ShareID(a.at(0)), Name: a.at(1),
		}, a.value("object", "theirs")}
	},
	"unmanage-snapshot": func(s *story, a *args) Command { return &UnmanageSnapshot{cairn.SnapshotID(a.at(0))} },
	"delete-snapshot":   func(s *story, a *args) Command { return &DeleteSnapshot{cairn.SnapshotID(a.at(0))} },
	"allow": func(s *story, a *args) Command {
		return &AllowAccess{s.rule(a, cairn.ShareID(a.at(0)), cairn.SnapshotID(a.value("snapshot", "")), a.pos[1:])}
	},
	"deny": func(s *story, a *args) Command { return &DenyAccess{cairn.RuleID(a.at(0))} },
	"set-access": func(s *story, a *args) Command {
		c := &SetAccess{Share: cairn.ShareID(a.at(0)), Snapshot: cairn.SnapshotID(a.value("snapshot", ""))}
		for _, rule := range a.pos[1:] {
			c.Rules = append(c.Rules, s.rule(a, c.Share, c.Snapshot, strings.Split(rule, ",")))
		}
		return c
	},
	"report":  (*story).report,
	"reports": (*story).reports,
	"add-replica": func(s *story, a *args) Command {
		return &AddReplica{cairn.ShareID(a.at(0)), Placement{cairn.ReplicaID(a.at(1)), cairn.PoolID(a.at(2))}}
	},
	"remove-replica": func(s *story, a *args) Command {
		return &RemoveReplica{cairn.ReplicaID(a.at(0)), a.flag("force")}
	},
	"resync": func(s *story, a *args) Command { return &ResyncReplica{cairn.ReplicaID(a.at(0))} },
	"promote": func(s *story, a *args) Command {
		return &PromoteShare{cairn.ShareID(a.at(0)), cairn.ReplicaID(a.at(1)), s.task(a)}
	},
	"failover": (*story).failover,
}

// failover reads "share:replica", with options such as ":sync~y1:window~3:keep~k1:epoch~2:forced". The epoch is by default
// the share's: what a leader that has just asked would say.
func (s *story) failover(a *args) Command {
	c := &FailoverShares{}
	for _, text := range a.pos {
		parts := strings.Split(text, ":")
		f := Failover{Share: cairn.ShareID(parts[0]), Replica: cairn.ReplicaID(parts[1]), Snapshot: "y1"}
		if share := s.m.View().Share(f.Share); share != nil {
			f.Epoch = s.m.View().Replica(share.Active).Epoch
		}
		f.Keep = cairn.SnapshotID("kept-by-" + string(f.Share) + "-" + countText(int64(f.Epoch)))
		for _, option := range parts[2:] {
			switch key, value, _ := strings.Cut(option, "~"); key {
			case "sync":
				f.Snapshot = cairn.SnapshotID(value)
			case "window":
				f.Window = a.size(value) * second
			case "keep":
				f.Keep = cairn.SnapshotID(value)
			case "epoch":
				f.Epoch = uint64(a.size(value))
			case "forced":
				f.Forced = true
			default:
				a.t.Fatalf("failover: no such option: %s", option)
			}
		}
		c.Failovers = append(c.Failovers, f)
	}
	return c
}

func (s *story) task(a *args) cairn.TaskID {
	s.tasks++
	return cairn.TaskID(a.value("task", "t"+countText(int64(s.tasks))))
}

func (s *story) rule(a *args, share cairn.ShareID, snapshot cairn.SnapshotID, words []string) cairn.AccessRule {
	if len(words) < 3 {
		a.t.Fatalf("%s: want kind, client and level", a.verb)
	}
	s.rules++
	r := cairn.AccessRule{
		ID: cairn.RuleID(a.value("id", "a"+countText(int64(s.rules)))), Share: share, Snapshot: snapshot,
		Kind: cairn.AccessKind(words[0]), Who: words[1], Level: cairn.AccessLevel(words[2]),
	}
	if r.Kind == cairn.AccessUser && !slices.Contains(words, "secretless") {
		r.Secret = cairn.Secret{Salt: []byte{1}, Hash: hashOf(string(r.ID))}
	}
	return r
}

func (s *story) createShare(a *args) Command {
	name := a.at(0)
	c := &CreateShare{
		Share: cairn.Share{
			ID: cairn.ShareID(a.value("id", "s-"+name)), Project: cairn.ProjectID(a.value("project", "web")), Name: name,
			Format: cairn.Format(a.value("format", "files")), Protocol: cairn.Protocol(a.value("protocol", "webdav")),
			Type: a.value("type", "default"), Size: a.size(a.value("size", "10GiB")),
			Source: cairn.SnapshotID(a.value("source", "")), Metadata: a.under("meta"), Description: a.value("description", ""),
		},
		Replicas: []Placement{{cairn.ReplicaID(a.value("replica", "r-"+name)), cairn.PoolID(a.value("pool", "n1/fast"))}},
		Adopt:    a.value("adopt", ""),
	}
	if c.Adopt != "" {
		c.Task = s.task(a)
	}
	for i, pool := range strings.FieldsFunc(a.value("replicas", ""), func(r rune) bool { return r == ',' }) {
		if i == 0 {
			c.Replicas[0].Pool = cairn.PoolID(pool)
			continue
		}
		id := fmt.Sprintf("%s-%d", c.Replicas[0].ID, i+1)
		c.Replicas = append(c.Replicas, Placement{cairn.ReplicaID(id), cairn.PoolID(pool)})
	}
	if a.flag("nowhere") {
		c.Replicas = nil
	}
	return c
}

// pools reads "fast:100GiB", with options such as ":reserved~10:over~200:without~clone:proto~nfs:driver~zfs:fault~broken".
func (s *story) pools(a *args) Command {
	node := cairn.NodeID(a.at(0))
	c := &RegisterPools{Node: node}
	for _, text := range a.pos[1:] {
		parts := strings.Split(text, ":")
		pool := cairn.Pool{
			ID: cairn.MakePoolID(node, parts[0]), Node: node, Name: parts[0], Driver: "dir", Total: a.size(parts[1]),
			OverSubscriptionPercent: 100, Protocols: []cairn.Protocol{cairn.ProtocolWebDAV},
			Capabilities: []cairn.Capability{
				cairn.CapAdopt, cairn.CapAdoptSnapshot, cairn.CapClone, cairn.CapReplicate, cairn.CapResize, cairn.CapRevert, cairn.CapSnapshot, cairn.CapUsage,
			},
		}
		for _, option := range parts[2:] {
			key, value, _ := strings.Cut(option, "~")
			switch key {
			case "reserved":
				pool.ReservedPercent = a.size(value)
			case "over":
				pool.OverSubscriptionPercent = a.size(value)
			case "without":
				pool.Capabilities = slices.DeleteFunc(pool.Capabilities, func(c cairn.Capability) bool { return string(c) == value })
			case "with":
				pool.Capabilities = append(pool.Capabilities, cairn.Capability(value))
				slices.Sort(pool.Capabilities)
			case "proto":
				pool.Protocols = []cairn.Protocol{cairn.Protocol(value)}
			case "driver":
				pool.Driver = value
			case "node":
				pool.Node = cairn.NodeID(value)
			case "fault":
				pool.Fault = cairn.Fault{Code: cairn.FaultPool, Message: strings.ReplaceAll(value, "_", " ")}
			case "unsorted":
				slices.Reverse(pool.Capabilities)
			default:
				a.t.Fatalf("pools: no such option: %s", option)
			}
		}
		c.Pools = append(c.Pools, pool)
	}
	return c
}

// report answers for the newest generation, having what is wanted, unless arguments say otherwise.
func (s *story) report(a *args) Command {
	c := &ReportReplica{Replica: cairn.ReplicaID(a.at(0)), Have: cairn.ReplicaHave{Presence: cairn.Presence(a.at(1))}}
	if r := s.m.View().Replica(c.Replica); r != nil {
		c.Node, c.Generation, c.Epoch, c.Have.Size = r.Node, r.Generation, r.Epoch, r.Want.Size
	}
	c.Node = cairn.NodeID(a.value("node", string(c.Node)))
	c.Generation -= uint64(a.number("behind"))
	c.Epoch -= uint64(a.number("epochs-behind"))
	if size := a.value("size", ""); size != "" {
		c.Have.Size = a.size(size)
	}
	c.Have.Fault = faultFrom(a.value("fault", ""))
	c.RuleFault = faultFrom(a.value("rule-fault", ""))
	if url := a.value("url", ""); url != "" {
		c.Have.Locations = []cairn.ExportLocation{{URL: url, Preferred: true}}
	}
	c.Have.InSync, c.Have.Diverged = a.flag("in-sync"), a.flag("diverged")
	c.Have.Sealed, c.Have.Synced = cairn.SnapshotID(a.value("sealed", "")), cairn.SnapshotID(a.value("synced", ""))
	c.Have.Kept = cairn.SnapshotID(a.value("kept", ""))
	for _, word := range a.pos[2:] { // snapshot:presence[:fault]
		parts := strings.SplitN(word, ":", 3)
		if len(parts) == 1 {
			continue // a flag
		}
		have := SnapshotHave{Snapshot: cairn.SnapshotID(parts[0]), Have: cairn.Presence(parts[1])}
		if len(parts) == 3 {
			have.Fault = faultFrom(parts[2])
		}
		c.Snapshots = append(c.Snapshots, have)
	}
	return c
}

// reports is many reports of one node: "node replica:presence[:generations-behind]…".
func (s *story) reports(a *args) Command {
	c := &ReportReplicas{Node: cairn.NodeID(a.at(0))}
	for _, word := range a.pos[1:] {
		parts := strings.SplitN(word, ":", 3)
		one := ReportReplica{Node: c.Node, Replica: cairn.ReplicaID(parts[0]), Have: cairn.ReplicaHave{Presence: cairn.Presence(parts[1])}}
		if r := s.m.View().Replica(one.Replica); r != nil {
			one.Node, one.Generation, one.Epoch, one.Have.Size = r.Node, r.Generation, r.Epoch, r.Want.Size
		}
		if len(parts) == 3 {
			behind, err := strconv.ParseUint(parts[2], 10, 64)
			if err != nil {
				a.t.Fatalf("reports: %q: %v", word, err)
			}
			one.Generation -= behind
		}
		c.Reports = append(c.Reports, one)
	}
	return c
}

// faultFrom reads "code/message".
func faultFrom(text string) cairn.Fault {
	code, message, _ := strings.Cut(text, "/")
	return cairn.Fault{Code: cairn.FaultCode(code), Message: message}
}
