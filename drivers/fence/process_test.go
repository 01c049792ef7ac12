package fence

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/lease"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/tool"
)

func (n *network) keeper() *tool.Process {
	n.t.Helper()
	child, err := tool.Start(tool.Spec{Name: os.Args[0], Args: []string{"-test.run=^TestKeeperProcess$"}, Env: []string{keeperChild + "=1"}, Stderr: os.Stderr, OwnGroup: true})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = child.Kill() })
	return child
}

// TestKeeperProcess is no test: it is the process that TestRootNobodyRenews stops and kills. A heart beats in it.
func TestKeeperProcess(t *testing.T) {
	if os.Getenv(keeperChild) == "" {
		t.Skip("is started by TestRootNobodyRenews")
	}
	var holder lease.Holder
	beat := func() { holder.Grant(lease.Boottime(), 0, ttl) }
	beat()
	go func() {
		for range time.Tick(50 * time.Millisecond) {
			beat()
		}
	}()
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	spec := share("r1", 1)
	server := &fakeServer{}
	k, err := NewKeeper(t.Context(), Config{
		Exporter: server, Guard: server, Gate: &Gate{Runner: tool.NewMachine(), Table: "cairn_nfs", Port: 2049},
		Addresses: &Addresses{Runner: tool.NewMachine(), Announce: Announce, Logger: logger},
		Lease:     func() time.Duration { return holder.Left(lease.Boottime()) }, Settle: func(context.Context) error { return nil }, Logger: logger,
	})
	for err == nil {
		if _, err = k.Export(t.Context(), spec); err == nil {
			break
		}
		logger.Warn("again", "error", err)
		err = nil
	}
	if err != nil {
		t.Fatal(err)
	}
	k.Run(t.Context())
}

// fakeServer stands for a server that goes on by itself, and is always in the right.
type fakeServer struct {
	mu    sync.Mutex
	specs []drivers.ExportSpec
}

func (s *fakeServer) Export(_ context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.specs = []drivers.ExportSpec{spec}
	return nil, nil
}
func (s *fakeServer) Unexport(context.Context, drivers.ExportID) error { return nil }
func (s *fakeServer) Exports(context.Context) ([]drivers.ExportSpec, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.specs, nil
}
func (s *fakeServer) Fence(context.Context, cairn.ReplicaID, uint64) error { return nil }
func (s *fakeServer) Check(cairn.ReplicaID, uint64) error                  { return nil }
