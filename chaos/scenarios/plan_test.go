package scenarios

import (
	"fmt"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/fault"
)

// TestPlan: a seed decides everything that is planned, another one something else, and all of it lies in the time of the run.
func TestPlan(t *testing.T) {
	const duration = 10 * time.Minute
	plan := func(seed uint64) string {
		text := ""
		for _, step := range Plan(seed, 5, duration, fault.Table()) {
			if step.At >= duration || step.Hold < step.Fault.Least || step.Hold > step.Fault.Most || step.Victim.Place >= 5 {
				t.Errorf("seed %d: %s", seed, step)
			}
			text += fmt.Sprintln(step, step.Seed)
		}
		return text
	}
	first, again := plan(1), plan(1)
	if first != again {
		t.Error("a seed has two plans")
	}
	if first == plan(2) {
		t.Error("two seeds have one plan")
	}
	seen := map[string]bool{}
	for seed := range uint64(20) {
		for _, step := range Plan(seed, 5, duration, fault.Table()) {
			seen[step.Fault.Name] = true
			if step.With != nil {
				seen["two at once"] = true
			}
		}
	}
	for _, name := range append(fault.Names(), "two at once") {
		if !seen[name] {
			t.Errorf("%s is never planned", name)
		}
	}
	if Plan(1, 3, duration, nil) != nil {
		t.Error("without faults something is planned")
	}
}
