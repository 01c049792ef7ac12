// Package fsm is the replicated state of a cluster as a pure function: (state, command, log index) -> (state, result,
// changes). It is the authority on every rule: names, quotas, capacity, locks, legal states.
//
// It does not know Raft, drivers, actors, gRPC, the clock or the disk. A command carries everything that is not
// deterministic: identifiers, the time, the placement. DESIGN.md says why it is built as it is.
package fsm
