package guard_test

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/cairn-storage/cairn/cluster/guard"
)

// company is the transport of one Raft node among peers that the test plays: b, who votes for it when the test lets him, and c.
type company struct {
	consumer  chan raft.RPC
	heartbeat func(raft.RPC)
	asked     chan uint64   // the term in which b was asked for his vote
	vote      chan struct{} // closed when he gives it
}

func (c *company) Consumer() <-chan raft.RPC                  { return c.consumer }
func (c *company) SetHeartbeatHandler(handler func(raft.RPC)) { c.heartbeat = handler }
func (*company) LocalAddr() raft.ServerAddress                { return "a" }
func (*company) DecodePeer(address []byte) raft.ServerAddress { return raft.ServerAddress(address) }
func (*company) EncodePeer(_ raft.ServerID, address raft.ServerAddress) []byte {
	return []byte(address)
}

func (*company) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (*company) AppendEntries(_ raft.ServerID, _ raft.ServerAddress, request *raft.AppendEntriesRequest, answer *raft.AppendEntriesResponse) error {
	*answer = raft.AppendEntriesResponse{Term: request.Term, Success: true}
	return nil
}

func (*company) RequestPreVote(_ raft.ServerID, _ raft.ServerAddress, request *raft.RequestPreVoteRequest, answer *raft.RequestPreVoteResponse) error {
	*answer = raft.RequestPreVoteResponse{Term: request.Term, Granted: true}
	return nil
}

func (c *company) RequestVote(id raft.ServerID, _ raft.ServerAddress, request *raft.RequestVoteRequest, answer *raft.RequestVoteResponse) error {
	if id != "b" {
		return errors.New("does not answer")
	}
	c.asked <- request.Term
	<-c.vote
	*answer = raft.RequestVoteResponse{Term: request.Term, Granted: true}
	return nil
}

func (*company) InstallSnapshot(raft.ServerID, raft.ServerAddress, *raft.InstallSnapshotRequest, *raft.InstallSnapshotResponse, io.Reader) error {
	return errors.New("is not played")
}

func (*company) TimeoutNow(raft.ServerID, raft.ServerAddress, *raft.TimeoutNowRequest, *raft.TimeoutNowResponse) error {
	return errors.New("is not played")
}

// says has c send a heartbeat as the leader of a term. It comes as it does from the network: on a goroutine of its own.
func (c *company) says(term uint64) (answer <-chan raft.RPCResponse) {
	rpc, answered := raft.RPC{Command: &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("c"), Addr: []byte("c")}, Term: term,
	}}, make(chan raft.RPCResponse, 1)
	rpc.RespChan = answered
	go c.heartbeat(rpc)
	return answered
}

// lone is a node among them.
type lone struct {
	*raft.Raft
	*company
	logs     *disk
	guarding *guard.Transport
	term     uint64 // in which it has asked b for his vote
}

func candidate(t *testing.T, guarded bool) *lone {
	t.Helper()
	peers := &company{consumer: make(chan raft.RPC), asked: make(chan uint64, 1), vote: make(chan struct{})}
	config := raft.DefaultConfig()
	config.LocalID, config.Logger = "a", hclog.NewNullLogger()
	config.HeartbeatTimeout, config.ElectionTimeout, config.LeaderLeaseTimeout = heartbeat, heartbeat, heartbeat
	logs := &disk{InmemStore: raft.NewInmemStore()}
	var transport raft.Transport = peers
	var guarding *guard.Transport
	if guarded {
		began := time.Now()
		guarding = guard.NewTransport(peers, guard.NewDisk(), diskLimit, guard.NewLedger(func() time.Duration { return time.Since(began) }))
		transport = guarding
	}
	var servers []raft.Server
	for _, id := range []string{"a", "b", "c"} {
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	stable, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	if err := raft.BootstrapCluster(config, logs, stable, snapshots, transport, raft.Configuration{Servers: servers}); err != nil {
		t.Fatal(err)
	}
	r, err := raft.NewRaft(config, state{}, logs, stable, snapshots, transport)
	if err != nil {
		t.Fatal(err)
	}
	if guarded {
		guarding.Serve(r)
	}
	return &lone{r, peers, logs, guarding, <-peers.asked}
}

func (l *lone) stop(t *testing.T) {
	if err := l.Shutdown().Error(); err != nil {
		t.Error(err)
	}
}

// TestVoteOfAnEarlierTerm lets the vote that a candidate needs arrive when another leads a later term and has said so. As the library
// comes, that term then has two leaders: heartbeats change the term beside the loop that counts votes, and do not wake it.
func TestVoteOfAnEarlierTerm(t *testing.T) {
	for name, guarded := range map[string]bool{"control: without the guard": false, "with the guard": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := candidate(t, guarded)
				defer n.stop(t)
				n.says(n.term + 1)
				synctest.Wait()
				close(n.vote)
				synctest.Wait()
				if two := n.State() == raft.Leader && n.CurrentTerm() == n.term+1; two == guarded {
					t.Errorf("asked for votes in term %d, it is a %s in term %d, which c leads", n.term, n.State(), n.CurrentTerm())
				}
			})
		})
	}
}

// TestEntryOfALaterTerm asks a leader for a write when another leads a later term and has said so. As the library comes, it writes the entry
// under that term, in which c may write another one at the same index. Nodes that compare the terms of entries then take them for the same.
func TestEntryOfALaterTerm(t *testing.T) {
	for name, guarded := range map[string]bool{"control: without the guard": false, "with the guard": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := candidate(t, guarded)
				defer n.stop(t)
				close(n.vote)
				synctest.Wait()
				n.says(n.term + 1)
				synctest.Wait()
				write := n.Apply([]byte("x"), time.Second)
				synctest.Wait()
				var last raft.Log
				if err := n.logs.GetLog(n.LastIndex(), &last); err != nil {
					t.Fatal(err)
				}
				if forged := string(last.Data) == "x" && last.Term == n.term+1; forged == guarded {
					t.Errorf("the leader of term %d wrote %q under term %d", n.term, last.Data, last.Term)
				}
				if err := write.Error(); guarded && !errors.Is(err, raft.ErrNotLeader) {
					t.Errorf("the write: %v, want %v", err, raft.ErrNotLeader)
				}
			})
		})
	}
}

// TestHeartbeatsWhileTheDiskHangs: a node whose main loop hangs in a write answers its leader at once, and says of a later one who he is.
func TestHeartbeatsWhileTheDiskHangs(t *testing.T) {
	answered := func(answer <-chan raft.RPCResponse) *raft.AppendEntriesResponse {
		select {
		case response := <-answer:
			return response.Response.(*raft.AppendEntriesResponse)
		default:
			return nil
		}
	}
	synctest.Test(t, func(t *testing.T) {
		n := candidate(t, true)
		defer n.stop(t)
		close(n.vote)
		synctest.Wait()
		term := n.term
		release := n.logs.hang()
		n.Apply([]byte("x"), time.Second)
		synctest.Wait()

		if _, _, ok := n.guarding.Successor(); ok {
			t.Error("there is a successor before there is one")
		}
		late := n.says(term + 1)
		synctest.Wait()
		if id, address, ok := n.guarding.Successor(); !ok || id != "c" || address != "c" {
			t.Errorf("the successor is %q at %q: %v, want c", id, address, ok)
		}
		select {
		case <-n.guarding.Succeeded():
		default:
			t.Error("nobody was told of the successor")
		}
		if got := answered(late); got != nil {
			t.Errorf("answered %+v, and Raft had not heard of it", got)
		}
		if n.State() != raft.Leader || n.CurrentTerm() != term {
			t.Errorf("Raft is a %s in term %d beside its own main loop", n.State(), n.CurrentTerm())
		}
		<-time.After(diskLimit)
		synctest.Wait()
		if got := answered(late); got == nil || !got.Success || got.Term != term+1 {
			t.Errorf("after %s answered %+v, want success in term %d", diskLimit, got, term+1)
		}
		old := n.says(term - 1)
		synctest.Wait()
		if got := answered(old); got == nil || got.Success || got.Term != term {
			t.Errorf("answered %+v to the leader of an earlier term", got)
		}

		again := n.says(term + 1)
		release()
		synctest.Wait()
		if got := answered(again); got == nil || !got.Success || got.Term != term+1 {
			t.Errorf("answered %+v, want success in term %d", got, term+1)
		}
		if _, _, ok := n.guarding.Successor(); ok || n.State() != raft.Follower || n.CurrentTerm() != term+1 {
			t.Errorf("it is a %s in term %d, and its leader is its successor: %v", n.State(), n.CurrentTerm(), ok)
		}
	})
}
