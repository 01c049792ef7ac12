// Package scenarios runs chaos: from one seed it decides what faults happen to whom and when, lets clients work meanwhile, heals
// everything, looks at what is left, and has it judged. It is the only package below chaos that knows all others.
package scenarios

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cairn-storage/cairn/chaos/fault"
)

// Victim says whom a fault happens to: who leads at that moment, who serves the share at that place, or the server at that place.
type Victim struct {
	Role  string // "leader", "active" or ""
	Place int
}

func (v Victim) String() string {
	if v.Role != "" {
		return "the " + v.Role
	}
	return fmt.Sprintf("server %d", v.Place+1)
}

// Step is one fault that is planned.
type Step struct {
	At     time.Duration // not before, since the clients began; and not before the one before it was healed
	Fault  fault.Fault
	Victim Victim
	Hold   time.Duration // before it is healed
	Seed   uint64        // of what the fault itself chooses
	With   *Step         // happens to another server at the same time; nil
}

func (s Step) String() string {
	text := fmt.Sprintf("%6s  %s of %s for %s", s.At.Round(time.Millisecond), s.Fault.Name, s.Victim, s.Hold.Round(time.Millisecond))
	if s.With != nil {
		text += fmt.Sprintf(", with %s of %s", s.With.Fault.Name, s.With.Victim)
	}
	return text
}

// Plan decides, from the seed alone, what happens to that many servers in that time.
func Plan(seed uint64, nodes int, duration time.Duration, faults []fault.Fault) []Step {
	random := rand.New(rand.NewPCG(seed, 0xfa))
	if len(faults) == 0 {
		return nil
	}
	var plan []Step
	at := between(random, 500*time.Millisecond, 2*time.Second)
	for at < duration {
		step := one(random, nodes, faults)
		step.At = at
		if nodes >= 5 && step.Fault.Needs != fault.NeedsAPI && step.Fault.Most > 0 && random.IntN(100) < 40 {
			if other := one(random, nodes, faults); other.Fault.Most > 0 {
				step.With = &other
			}
		}
		plan = append(plan, step)
		at += step.Hold + between(random, 500*time.Millisecond, 4*time.Second)
	}
	return plan
}

func one(random *rand.Rand, nodes int, faults []fault.Fault) Step {
	step := Step{Fault: faults[random.IntN(len(faults))], Victim: Victim{Place: random.IntN(nodes)}, Seed: random.Uint64()}
	step.Hold = between(random, step.Fault.Least, step.Fault.Most)
	switch random.IntN(10) {
	case 0, 1, 2:
		step.Victim.Role = "leader"
	case 3, 4, 5:
		step.Victim.Role = "active"
	}
	return step
}

func between(random *rand.Rand, least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + time.Duration(random.Int64N(int64(most-least)))
}
