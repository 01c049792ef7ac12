package guard_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn/cluster/guard"
)

const (
	heartbeat = 300 * time.Millisecond
	diskLimit = time.Second
)

// member is one Raft node on stores in memory.
type member struct {
	*raft.Raft
	id     raft.ServerID
	disk   *disk
	logs   raft.LogStore // in the place of disk, if not nil
	stable raft.StableStore
	snaps  raft.SnapshotStore
	wire   *wire

	ledger    *guard.Ledger
	transport *guard.Transport

	trailing uint64 // Raft's default if 0
}

// disk is a log store whose writes can hang.
type disk struct {
	*raft.InmemStore
	mu   sync.Mutex
	hung chan struct{}
}

func (d *disk) hang() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hung := make(chan struct{})
	d.hung = hung
	return func() { close(hung) }
}

func (d *disk) StoreLogs(logs []*raft.Log) error {
	d.mu.Lock()
	hung := d.hung
	d.mu.Unlock()
	if hung != nil {
		<-hung
	}
	return d.InmemStore.StoreLogs(logs)
}

// wire is a transport on which answers to AppendEntries can be held back and peers cut off.
type wire struct {
	*raft.InmemTransport
	mu   sync.Mutex
	held chan struct{}                                        // answers wait until it is closed
	only func(raft.ServerID, *raft.AppendEntriesRequest) bool // which answers
	cut  map[raft.ServerAddress]bool
	late chan held // what is held back
}

// held is an answer that is held back. Raft has one of each kind under way to a peer.
type held struct {
	peer      raft.ServerID
	heartbeat bool
}

func (w *wire) AppendEntries(id raft.ServerID, to raft.ServerAddress, request *raft.AppendEntriesRequest, answer *raft.AppendEntriesResponse) error {
	if err := w.reach(to); err != nil {
		return err
	}
	err := w.InmemTransport.AppendEntries(id, to, request, answer)
	w.mu.Lock()
	until, only := w.held, w.only
	w.mu.Unlock()
	if until != nil && only(id, request) {
		select {
		case w.late <- held{id, request.LeaderCommitIndex == 0}:
		default:
		}
		<-until
	}
	return err
}

func (w *wire) RequestVote(id raft.ServerID, to raft.ServerAddress, request *raft.RequestVoteRequest, answer *raft.RequestVoteResponse) error {
	if err := w.reach(to); err != nil {
		return err
	}
	return w.InmemTransport.RequestVote(id, to, request, answer)
}

func (w *wire) reach(to raft.ServerAddress) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut[to] {
		return errors.New("cut off")
	}
	return nil
}

func (w *wire) hold(only func(raft.ServerID, *raft.AppendEntriesRequest) bool) (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	until := make(chan struct{})
	w.held, w.only = until, only
	return func() {
		w.mu.Lock()
		w.held = nil
		w.mu.Unlock()
		close(until)
	}
}

func (w *wire) cutOff(to raft.ServerAddress, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[to] = cut
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newMember(id string) *member {
	_, transport := raft.NewInmemTransportWithTimeout(raft.ServerAddress(id), time.Second)
	return &member{
		id: raft.ServerID(id), disk: &disk{InmemStore: raft.NewInmemStore()}, stable: raft.NewInmemStore(), snaps: raft.NewInmemSnapshotStore(),
		wire: &wire{InmemTransport: transport, cut: make(map[raft.ServerAddress]bool), late: make(chan held, 16)},
	}
}

// start runs the member, guarded or as the library comes.
func (m *member) start(t *testing.T, guarded bool, timeout time.Duration) {
	t.Helper()
	config := raft.DefaultConfig()
	config.LocalID, config.Logger = m.id, hclog.NewNullLogger()
	config.HeartbeatTimeout, config.ElectionTimeout, config.LeaderLeaseTimeout = timeout, timeout, timeout
	config.TrailingLogs = cmp.Or(m.trailing, config.TrailingLogs)
	var transport raft.Transport = m.wire
	var logs raft.LogStore = m.disk
	if m.logs != nil {
		logs = m.logs
	}
	if guarded {
		d := guard.NewDisk()
		began := time.Now()
		m.ledger = guard.NewLedger(func() time.Duration { return time.Since(began) })
		m.transport = guard.NewTransport(m.wire, d, diskLimit, m.ledger)
		transport, logs = m.transport, d.Watch(m.disk)
	}
	r, err := raft.NewRaft(config, state{}, logs, m.stable, m.snaps, transport)
	if err != nil {
		t.Fatal(err)
	}
	m.Raft = r
}

func connect(members []*member) {
	for _, a := range members {
		for _, b := range members {
			if a != b {
				a.wire.Connect(raft.ServerAddress(b.id), b.wire.InmemTransport)
			}
		}
	}
}

// cluster starts n members that know each other as voters.
func cluster(t *testing.T, n int, guarded bool, timeout time.Duration) []*member {
	t.Helper()
	var members []*member
	var servers []raft.Server
	for i := range n {
		m := newMember(fmt.Sprintf("n%d", i+1))
		members = append(members, m)
		servers = append(servers, raft.Server{Suffrage: raft.Voter, ID: m.id, Address: raft.ServerAddress(m.id)})
	}
	connect(members)
	for _, m := range members {
		m.start(t, guarded, timeout)
		if err := m.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
			t.Fatal(err)
		}
	}
	return members
}

func stop(t *testing.T, members []*member) {
	t.Helper()
	for _, m := range members {
		if err := m.Shutdown().Error(); err != nil {
			t.Error(err)
		}
	}
}

// leader waits for a member that leads and is none of those.
func leader(t *testing.T, members []*member, within time.Duration, but ...*member) *member {
	t.Helper()
	deadline := time.Now().Add(within)
	look := max(time.Millisecond, within/1000)
	for time.Now().Before(deadline) {
	next:
		for _, m := range members {
			for _, other := range but {
				if m == other {
					continue next
				}
			}
			if m.State() == raft.Leader {
				return m
			}
		}
		<-time.After(look)
	}
	return nil
}

// state is a state machine without state.
type state struct{}

func (state) Apply(*raft.Log) any                 { return nil }
func (state) Snapshot() (raft.FSMSnapshot, error) { return state{}, nil }
func (state) Restore(r io.ReadCloser) error       { return r.Close() }
func (state) Persist(sink raft.SnapshotSink) error {
	return sink.Close()
}
func (state) Release() {}
