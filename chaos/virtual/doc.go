// Package virtual runs whole clusters in virtual time: real nodes with real Raft, TLS and gRPC, actors, replication, failover and
// the ZFS driver, under testing/synctest, on a network in memory that delays, loses, reorders and partitions, with processes that
// die, stop and start again, disks that hang or are full, and wall clocks that jump. Hours pass in seconds.
//
// A seed decides the cluster, its users and everything that happens to it. It does not decide in which order goroutines run: the
// same seed gives the same kind of history again, not the same one. What is the same, bit for bit, is in package actors/sim.
//
// Every timing of the product is multiplied by the same number, so ratios are those of a real cluster, and an hour here is an
// hour of that slower cluster.
package virtual
