// Package placement decides which pool takes a replica, and says why: filters that a pool passes or not, then weighers
// that order those that pass. Pure functions of their arguments: no clock, no randomness, no map order.
//
// It knows no Raft and no driver. What it decides is written into a command, and package fsm checks capacity again when
// it applies that command; so two decisions made at the same time cannot overfill a pool.
package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// Request is what has to be placed.
type Request struct {
	Size     int64 // bytes
	Format   cairn.Format
	Protocol cairn.Protocol // "" if the replica is not exported
	Type     *cairn.ShareType
	Zone     string       // "" is any
	Pool     cairn.PoolID // "" is any; else the only one that may take it, such as the pool of a clone's source
	// Driver is the only driver that will do, such as that of the other replicas; "" is any.
	Driver string
	// Apart are the nodes that have a replica already: another one there would protect from nothing.
	Apart []cairn.NodeID
	// Needs are capabilities beyond those that the type asks for, such as clone or adopt.
	Needs []cairn.Capability
}

// Candidate is a pool as the leader knows it.
type Candidate struct {
	Pool        *cairn.Pool
	Node        *cairn.Node // nil if the node has no row
	Provisioned int64       // bytes promised on the pool
	Free        int64       // bytes free on the storage, by telemetry; -1 is unknown
	Leaders     int         // active replicas on the node
}

// Verdict is what became of one pool.
type Verdict struct {
	Pool     cairn.PoolID
	Node     string
	PoolName string
	Accepted bool
	Filter   string // the first filter that the pool did not pass
	Reason   string // what that filter found
	Score    float64
	Terms    []Term
}

// Term is one part of a score, which is the sum of Value times Weight. Value is between 0 and 1.
type Term struct {
	Name          string
	Value, Weight float64
}

// Place chooses the pool with the highest score of those that pass every filter, the lowest ID among equals. verdicts has
// one entry for every candidate, in order of node name and pool name. The error wraps cairn.ErrNotSupported if a pool
// of this kind does not exist at all, else cairn.ErrCapacity, and names each pool's first failing filter.
func Place(req Request, candidates []Candidate) (chosen *cairn.Pool, verdicts []Verdict, err error) {
	candidates = slices.SortedFunc(slices.Values(candidates), func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(nodeName(a), nodeName(b)), cmp.Compare(a.Pool.Name, b.Pool.Name), cmp.Compare(a.Pool.ID, b.Pool.ID))
	})
	best := -1
	for i, c := range candidates {
		v := judge(req, c, candidates)
		verdicts = append(verdicts, v)
		if !v.Accepted {
			continue
		}
		if best < 0 || v.Score > verdicts[best].Score || v.Score == verdicts[best].Score && v.Pool < verdicts[best].Pool {
			best = i
		}
	}
	if best < 0 {
		return nil, verdicts, refusal(req, verdicts)
	}
	return candidates[best].Pool, verdicts, nil
}

// Candidates gathers every pool of the view. free reports the free bytes of a pool, -1 if they are not known; leaders is
// how many active replicas each node has, by a Census.
func Candidates(v *fsm.View, free func(cairn.PoolID) int64, leaders map[cairn.NodeID]int) []Candidate {
	var all []Candidate
	for p := range v.Pools() {
		all = append(all, Candidate{
			Pool:        p,
			Node:        v.Node(p.Node),
			Provisioned: v.Provisioned(p.ID),
			Free:        free(p.ID),
			Leaders:     leaders[p.Node],
		})
	}
	return all
}

func judge(req Request, c Candidate, all []Candidate) Verdict {
	v := Verdict{Pool: c.Pool.ID, Node: nodeName(c), PoolName: c.Pool.Name}
	for _, f := range filters {
		if reason := f.check(req, c); reason != "" {
			v.Filter, v.Reason = f.name, reason
			return v
		}
	}
	v.Accepted = true
	for _, w := range weighers {
		term := Term{Name: w.name, Value: w.value(req, c, all), Weight: w.weight}
		v.Terms = append(v.Terms, term)
		v.Score += term.Value * term.Weight
	}
	return v
}

func nodeName(c Candidate) string {
	if c.Node != nil {
		return c.Node.Name
	}
	return string(c.Pool.Node)
}

// refusal explains why no pool was chosen.
func refusal(req Request, verdicts []Verdict) error {
	if len(verdicts) == 0 {
		return fmt.Errorf("no pool can take share of %s: the cluster has no pools: %w", cairn.FormatSize(req.Size), cairn.ErrCapacity)
	}
	cause := cairn.ErrNotSupported
	var reasons []string
	for _, v := range verdicts {
		reasons = append(reasons, fmt.Sprintf("%s/%s: %s: %s", v.Node, v.PoolName, v.Filter, v.Reason))
		if !neverFits(v.Filter) {
			cause = cairn.ErrCapacity
		}
	}
	return fmt.Errorf("no pool can take share of %s: %s: %w", cairn.FormatSize(req.Size), strings.Join(reasons, "; "), cause)
}
