// Package cairn holds the nouns of the project: shares, replicas, snapshots, access rules, pools, nodes,
// share types, tasks, quotas and events, with the table of legal states and the sentinel errors.
//
// It knows no Raft, no driver, no gRPC and no file system, and imports only the standard library. Values are
// plain data: whoever holds a pointer to a row that came out of package fsm must not change it.
//
// Times are Unix nanoseconds (int64) because rows are replicated byte for byte; sizes are bytes.
package cairn
