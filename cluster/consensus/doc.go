// Package consensus runs one Raft instance over one state machine: durable stores, guarded transport, proposals, reads
// that are certainly not stale, and the in-place restart that heals what the guards detect.
//
// It knows bytes in and results out. What a command means, who is a member and how peers are reached are its caller's;
// it is given a stream layer and never sees a certificate.
package consensus
