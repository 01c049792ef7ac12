// Package bench measures Cairn against limits that are probed in the same run: what the network alone takes, what the disk
// and Raft alone take. It holds benchmarks only; `make bench` runs them. README.md says how to read them.
//
// It knows how a server is put together, because it puts three into one process, with a pool driver that does nothing.
package bench
