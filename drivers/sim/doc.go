// Package sim stands where a machine's storage tools are: zfs and zpool, and exportfs, behind tool.Runner and
// tool.Streamer. Drivers and their crash sweeps run against it without root, without a kernel module and fast.
//
// It answers as the real tool does, word for word: the transcripts in testdata are recorded from the real tools, and a test
// holds the simulator to every line of them. What it does not know it does not guess: an option, a property or a situation
// beyond what was recorded is a Go error that begins with "sim: not simulated", which no driver can take for an answer.
//
// Metadata is in memory; contents are real directories below the directory of the simulator, so tests write to a dataset's
// mountpoint and read its snapshots as they would on the machine. What directories cannot do without privilege is not done:
//
//   - Limits do not stop writers. quota, refquota and reservations count in what the tool says, and refuse commands.
//   - readonly, canmount and the modes of mounts are properties and no more. A mounted dataset stands at its mountpoint, an
//     unmounted one does not.
//   - Reading is no change. On a real pool it is one, with atime=on, and an incremental stream is refused after it.
//   - Snapshots can be written to. They are at <mountpoint>/.zfs/snapshot/<name>, and .zfs is a link that a listing shows.
//   - Sizes are those of files, with a little for each dataset; nothing is compressed, and what a snapshot alone holds is
//     an estimate by file.
//
// Every command is atomic: it is done when Run returns nil, and has changed nothing when it failed, except where the tool
// itself leaves something: the state that "zfs receive -s" keeps, a clone that cannot be mounted, one of several settings.
package sim
