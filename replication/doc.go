// Package replication moves snapshots between nodes: a standby's node pulls from the active replica's node, over gRPC and
// mutual TLS. Server is the active's side, Client and Watcher are the standby's.
//
// A stream is an offer, chunks, and an end with the length and a sum of all chunks, before their compression if there is any.
// TLS protects it on the way; the sum protects it from everything else, and from being cut: a stream without its end is never
// taken as whole. What is in the chunks is the drivers' affair. Nothing here has a total deadline, and everything has one
// without progress.
//
// The package does not know what a replica lacks, when it is asked for, or what becomes of it: that is package replica. It
// knows no lease and moves no role. The replicated state tells it only who may ask for what.
package replication
