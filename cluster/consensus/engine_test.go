package consensus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/lease"
	"github.com/cairn-storage/cairn/fsm"
)

// tcp is a stream layer without TLS, on a port that stays the same over restarts.
type tcp struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *tcp) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, conn)
		l.mu.Unlock()
	}
	return conn, err
}

func (l *tcp) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	return l.Listener.Close()
}

func (l *tcp) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(address), timeout)
}

func address(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// open starts an engine whose terms begin by themselves.
func open(t *testing.T, id, dir, at string, found *raft.Configuration) *Engine {
	t.Helper()
	timing := DefaultTiming()
	timing.Heartbeat, timing.Commit = 100*time.Millisecond, 10*time.Millisecond
	return openTimed(t, id, dir, at, found, timing)
}

func openTimed(t *testing.T, id, dir, at string, found *raft.Configuration, timing Timing) *Engine {
	t.Helper()
	e, err := Open(Config{
		Dir: dir, ID: raft.ServerID(id), Machine: fsm.New(), Timing: timing,
		Clock: lease.Boottime, Logger: slog.New(slog.DiscardHandler),
		Streams: func() raft.StreamLayer {
			listener, err := net.Listen("tcp", at)
			if err != nil {
				t.Error(err)
			}
			return &tcp{Listener: listener}
		},
	}, found)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case leads := <-e.Terms():
				for leads && !errors.Is(e.Begin(e.ctx), ErrNotLeader) && !e.Leading() && e.ctx.Err() == nil {
				}
			case <-e.ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return e
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func command(t *testing.T, name string) []byte {
	t.Helper()
	data, err := fsm.Encode(fsm.Meta{At: 1, Actor: "user/test"}, &fsm.CreateType{Type: cairn.ShareType{Name: name, Format: cairn.FormatFiles}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func apply(t *testing.T, e *Engine, name string) {
	t.Helper()
	waitFor(t, "apply "+name, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		result, err := e.Apply(ctx, command(t, name))
		return err == nil && (result.Err == nil || errors.Is(result.Err, cairn.ErrExists))
	})
}

func alone(id, at string) *raft.Configuration {
	return &raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(id), Address: raft.ServerAddress(at)}}}
}

// TestRestartInPlace is how a stuck transfer heals. Nobody may see the state go back while Raft replays its log.
func TestRestartInPlace(t *testing.T) {
	at := address(t)
	e := open(t, "n1", t.TempDir(), at, alone("n1", at))
	for i := range 50 {
		apply(t, e, fmt.Sprintf("t%d", i))
	}
	newest, stop := e.machine.View().Index(), make(chan struct{})
	watched := make(chan bool, 1)
	go func() {
		back := false
		for {
			select {
			case <-stop:
				watched <- back
				return
			default:
				back = back || e.machine.View().Index() < newest
			}
		}
	}()
	before := e.instance.Load()
	e.restarts <- "test"
	waitFor(t, "a new instance leads", func() bool { return e.instance.Load() != before && e.Leading() })
	apply(t, e, "after")
	close(stop)
	if <-watched {
		t.Error("the state went back")
	}
	if _, err := e.ReadIndex(t.Context()); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"t0", "t49", "after"} {
		if e.machine.View().Type(name) == nil {
			t.Errorf("%s is gone", name)
		}
	}
}

// TestStoppedWhileItInstalls restarts a node in place that had stored the leader's snapshot and not yet taken it into its state. What the snapshot
// covers is not in its log.
func TestStoppedWhileItInstalls(t *testing.T) {
	at := address(t)
	e := open(t, "n1", t.TempDir(), at, alone("n1", at))
	apply(t, e, "before")
	_, term := e.LastLog()
	index := e.Applied() + 10
	leaders := fsm.New()
	leaders.Apply(index, command(t, "installed"))
	sink, err := e.stores.snapshots.Create(raft.SnapshotVersionMax, index, term, *alone("n1", at), 1, e.instance.Load().transport)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaders.Snapshot().WriteTo(sink); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	before := e.instance.Load()
	e.restarts <- "test"
	waitFor(t, "a new instance", func() bool { return e.instance.Load() != before })
	apply(t, e, "after")
	for _, name := range []string{"installed", "after"} {
		if e.machine.View().Type(name) == nil {
			t.Errorf("%s is not in the state", name)
		}
	}
}

// TestSnapshotsCountCommands: one entry with many commands makes a snapshot due, since a restart would replay all of them.
func TestSnapshotsCountCommands(t *testing.T) {
	at, timing := address(t), DefaultTiming()
	timing.SnapshotCheck, timing.SnapshotEvery = 10*time.Millisecond, maxBundled
	e := openTimed(t, "n1", t.TempDir(), at, alone("n1", at), timing)
	waitFor(t, "it leads", e.Leading)
	var commands [][]byte
	for i := range maxBundled {
		commands = append(commands, command(t, fmt.Sprintf("t%d", i)))
	}
	if _, err := e.proposeEntry(commands, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a snapshot", func() bool {
		snapshots, err := e.stores.snapshots.List()
		return err == nil && len(snapshots) > 0
	})
	if n := e.machine.sinceSnapshot(); n != 0 {
		t.Errorf("%d commands since", n)
	}
}

// TestConflictingLogHeals gives a node a log that contradicts the leader's snapshot, as raft #697 describes, and expects the
// engine to notice and to catch up by itself.
func TestConflictingLogHeals(t *testing.T) {
	firstAt, secondAt := address(t), address(t)
	first := open(t, "n1", t.TempDir(), firstAt, alone("n1", firstAt))
	for i := range 20 {
		apply(t, first, fmt.Sprintf("t%d", i))
	}
	// The leader keeps nothing of its log before the snapshot.
	settings := first.Raft().ReloadableConfig()
	settings.TrailingLogs = 0
	if err := first.Raft().ReloadConfig(settings); err != nil {
		t.Fatal(err)
	}
	if err := first.Raft().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	snapshots, err := first.stores.snapshots.List()
	if err != nil || len(snapshots) == 0 {
		t.Fatal(err)
	}
	dir := t.TempDir()
	contradict(t, filepath.Join(dir, "log.db"), snapshots[0].Index, snapshots[0].Term+7)
	second := open(t, "n2", dir, secondAt, nil)
	before := second.instance.Load()
	if err := first.Raft().AddNonvoter("n2", raft.ServerAddress(secondAt), 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	apply(t, first, "after")
	waitFor(t, "the second node has caught up", func() bool { return second.machine.View().Type("after") != nil })
	if second.instance.Load() == before {
		t.Error("it caught up without a restart: the test no longer shows the fault")
	}
	if second.machine.View().Digest() != first.machine.View().Digest() {
		t.Error("the states differ")
	}
}

// contradict writes a log of entries whose last one is of the wrong term.
func contradict(t *testing.T, path string, last, term uint64) {
	t.Helper()
	store, err := raftboltdb.NewBoltStore(path)
	if err != nil {
		t.Fatal(err)
	}
	var logs []*raft.Log
	for index := uint64(1); index <= last; index++ {
		logs = append(logs, &raft.Log{Index: index, Term: 1, Type: raft.LogNoop})
	}
	logs[len(logs)-1].Term = term
	if err := store.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAbandonedBarrier: a barrier that nobody waits for any more must not hold up readers until the next command.
func TestAbandonedBarrier(t *testing.T) {
	at := address(t)
	e := open(t, "n1", t.TempDir(), at, alone("n1", at))
	apply(t, e, "x")
	waitFor(t, "the term has begun", e.Leading)
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	_ = e.barrier(ctx)
	read, done := context.WithTimeout(t.Context(), 5*time.Second)
	defer done()
	if _, err := e.ReadIndex(read); err != nil {
		t.Error(err)
	}
}

// TestApplyOfTheDead: every way to fail says whether anything was done.
func TestApplyOfTheDead(t *testing.T) {
	for _, test := range []struct {
		from error
		want error
	}{
		{raft.ErrNotLeader, ErrNotLeader},
		{raft.ErrEnqueueTimeout, cairn.ErrUnavailable},
		{raft.ErrLeadershipTransferInProgress, cairn.ErrUnavailable},
		{raft.ErrLeadershipLost, cairn.ErrUnknownOutcome},
		{raft.ErrRaftShutdown, cairn.ErrUnknownOutcome},
		{errors.New("disk"), cairn.ErrUnknownOutcome},
	} {
		if got := translate(test.from); !errors.Is(got, test.want) {
			t.Errorf("%v: got %v, want %v", test.from, got, test.want)
		}
	}
}

func TestTwoProcessesOneDirectory(t *testing.T) {
	at, dir := address(t), t.TempDir()
	open(t, "n1", dir, at, alone("n1", at))
	_, err := openStores(&Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}, t.Context().Done())
	if !errors.Is(err, cairn.ErrInUse) {
		t.Errorf("got %v, want %v", err, cairn.ErrInUse)
	}
}

// TestStoresOnAFullDisk: a disk that the log has filled must not keep a term or a vote from being written, because Raft
// would panic. What a crash left of a snapshot gives its space back.
func TestStoresOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	half := filepath.Join(dir, "snapshots", "1-2-3.tmp")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := openStores(&Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}, t.Context().Done())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a snapshot that a crash left half written is kept: %v", err)
	}
	allocated := func() int64 {
		var stat syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, voteFile), &stat); err != nil {
			t.Fatal(err)
		}
		return stat.Blocks
	}
	before := allocated()
	for term := range uint64(200) {
		if err := errors.Join(
			s.vote.SetUint64([]byte("CurrentTerm"), term+1), s.vote.SetUint64([]byte("LastVoteTerm"), term+1),
			s.vote.Set([]byte("LastVoteCand"), []byte("01a1fd5a-4bfc-7cdf-9fe5-a5c2d6624352@a-rather-long-name.storage.example.org:7400")),
		); err != nil {
			t.Fatal(err)
		}
	}
	if after := allocated(); after > before {
		t.Errorf("grew from %d to %d blocks", before, after)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}
