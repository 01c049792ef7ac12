// Package cluster is one node of the cluster: Raft, gossip, certificates, leases, and what the leader does in its term.
//
// It replicates commands of package fsm and knows of the state only what membership, leases and tokens need. It knows no
// share, no driver, no actor and no client API: the caller serves its own gRPC services on APIListener.
//
// Node composes the parts, each in a package of its own: identity (who a machine is), mux (one port by ALPN), consensus
// (Raft with its guards), lease (the right to write, bounded by time) and gossip (hints). DESIGN.md says why.
package cluster
