// Package guard puts right what hashicorp/raft 1.7.3 leaves open, from outside: by wrapping the stores and the transport
// that it is given. Each guard has a test that shows the fault without it.
//
//   - Disk: a leader whose disk hangs goes on to send heartbeats for ever, and no other is elected (raft #503, #614).
//   - Ledger: VerifyLeader counts answers to heartbeats that were sent before it was asked, so a leader that was cut off
//     or stopped can serve a stale read.
//   - Transport's inbox: heartbeats are taken beside the main loop, and change its term under its hands. An old leader then
//     writes, and a candidate counts votes, under a term in which another leads: states differ for good (raft #695).
//   - VoteStore: a vote is persisted in two writes, and a crash between them lets the voter vote twice (raft #661).
//   - Suffix: a follower that cannot write what replaces the end of its log follows no more (a comment in Raft's appendEntries says so).
//   - ErrLogRefuses: a follower that cannot write says what one says that lacks what comes before, and is sent ever older entries, and a
//     snapshot from before its state in the end.
//   - Contiguous: after a snapshot is installed the log has a gap before its index and no entry there, and leaders get stuck in both.
//   - Transfer: a leadership transfer that was cut short can leave a leader that refuses every write (raft #696).
//   - Installs: a follower whose log conflicts with an installed snapshot keeps the conflict and is sent the snapshot
//     again and again (raft #697).
//
// The package knows Raft's interfaces and nothing else of the cluster. It detects and refuses; what heals is the caller's.
package guard
