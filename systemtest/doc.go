// Package systemtest tests clusters of real server processes through the real command line, API and WebDAV: bad input,
// kill -9, stopped and hung processes, full disks, lost quorums. It has no code but tests; `make system` runs them, and
// `go test -short` skips them. Linux only.
//
// It knows nothing that an operator could not see: configuration, exit codes, answers, logs, and what lies in a pool.
//
// Clocks that are far off are not tested here: the wall clock of one process cannot be shifted (time namespaces shift
// monotonic clocks only). Package cluster tests them with a clock of its own.
package systemtest
