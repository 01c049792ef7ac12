package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/cmd/cairn/node"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// inProcess is three complete servers in this process, the raw Raft's like: the only thing that is not real is the pool.
type inProcess struct {
	b       *testing.B
	configs []node.Config
	admin   client.Config
	all     *client.Client   // any server
	each    []*client.Client // one server
	serving *errgroup.Group
	stop    context.CancelFunc
}

// shareType promises nothing that a pool which does nothing could not keep.
const shareType = "bare"

func newInProcess(b *testing.B, dir string) *inProcess {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &inProcess{b: b, stop: cancel}
	p.serving, ctx = errgroup.WithContext(ctx)
	b.Cleanup(p.close)
	layout, err := local.New(local.Config{Dir: dir})
	p.check(err)
	for i := range 3 {
		server, err := layout.Prepare()
		p.check(err)
		config, err := node.LoadConfig(server.File)
		p.check(err)
		config.Pools[0].Driver = "noop"
		p.configs = append(p.configs, config)
		if i == 0 {
			p.found()
		} else {
			p.join(config)
		}
		p.serve(ctx, config)
		p.dial()
		p.awaitUp(config.Name)
	}
	p.await("three voters", func(ctx context.Context) (bool, error) {
		status, err := p.all.Cluster().GetClusterStatus(ctx, &cairnv1.GetClusterStatusRequest{})
		return len(local.Voters(status)) == 3, err
	})
	_, err = p.all.Types().CreateType(context.Background(), &cairnv1.CreateTypeRequest{Type: &cairnv1.ShareType{Name: shareType, Format: string(cairn.FormatFiles)}})
	p.check(err)
	return p
}

func (p *inProcess) check(err error) {
	p.b.Helper()
	if err != nil {
		p.b.Fatal(err)
	}
}

func (p *inProcess) found() {
	bundle, err := node.InitCluster(p.configs[0], "bench", 1)
	p.check(err)
	p.admin, err = client.ParseConfig(bundle)
	p.check(err)
}

func (p *inProcess) join(config node.Config) {
	answer, err := p.all.Nodes().CreateNodeToken(context.Background(), &cairnv1.CreateNodeTokenRequest{Name: config.Name})
	p.check(err)
	p.check(node.Join(context.Background(), config, answer.GetToken()))
}

func (p *inProcess) serve(ctx context.Context, config node.Config) {
	drivers := map[string]node.OpenPool{
		"noop": func(context.Context, cairn.PoolID, node.PoolConfig, bool, *slog.Logger) (drivers.Pool, error) {
			return newNoop(filepath.Join(config.DataDir, "noop"))
		},
	}
	n, err := node.Open(ctx, config, drivers, slog.New(slog.DiscardHandler))
	p.check(err)
	p.serving.Go(func() error { return n.Serve(ctx) })
}

// dial connects to what there is so far.
func (p *inProcess) dial() {
	p.hangUp()
	p.admin.Addresses = nil
	for _, config := range p.configs {
		p.admin.Addresses = append(p.admin.Addresses, config.Listen)
		one := p.admin
		one.Addresses = []string{config.Listen}
		c, err := client.Dial(one)
		p.check(err)
		p.each = append(p.each, c)
	}
	var err error
	p.all, err = client.Dial(p.admin)
	p.check(err)
}

func (p *inProcess) hangUp() {
	for _, c := range p.each {
		_ = c.Close()
	}
	p.each = nil
	if p.all != nil {
		_ = p.all.Close()
	}
}

func (p *inProcess) close() {
	p.hangUp()
	p.stop()
	if err := p.serving.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		p.b.Error(err)
	}
}

func (p *inProcess) await(what string, condition func(ctx context.Context) (bool, error)) {
	p.b.Helper()
	p.check(local.Await(context.Background(), what, condition))
}

func (p *inProcess) awaitUp(name string) {
	p.await(name+" to be up", func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		answer, err := p.all.Nodes().GetNode(ctx, &cairnv1.GetNodeRequest{Node: name})
		return answer.GetNode().GetState() == "up" && answer.GetNode().GetRaftRole() != "", err
	})
}

// leader is the connection to the server that leads, follower one to another.
func (p *inProcess) leader() *client.Client   { return p.server(true) }
func (p *inProcess) follower() *client.Client { return p.server(false) }

func (p *inProcess) server(leads bool) *client.Client {
	var found *client.Client
	p.await("a leader", func(ctx context.Context) (bool, error) {
		for i, c := range p.each {
			status, err := c.Cluster().GetClusterStatus(ctx, &cairnv1.GetClusterStatusRequest{})
			if err != nil {
				return false, err
			}
			if status.GetLeader() != "" && leads == (status.GetLeader() == p.configs[i].Name) {
				found = c
			}
		}
		return found != nil, nil
	})
	return found
}

// create is one committed CreateShare with a name of its own.
func create(c *client.Client, round string) func(ctx context.Context, n int) error {
	shares := c.Shares()
	return func(ctx context.Context, n int) error {
		_, err := shares.CreateShare(ctx, &cairnv1.CreateShareRequest{Name: fmt.Sprintf("%s.%d", round, n), Size: 1 << 20, Type: shareType})
		return err
	}
}

// clear deletes all shares but the one named, and waits until they are gone: an exporter keeps files open for each share.
func (p *inProcess) clear(but string) {
	p.b.Helper()
	p.await("the end of all shares", func(ctx context.Context) (bool, error) {
		list, err := p.all.Shares().ListShares(ctx, &cairnv1.ListSharesRequest{})
		if err != nil {
			return false, err
		}
		var names []string
		left := 0
		for _, s := range list.GetShares() {
			if s.GetName() == but {
				continue
			}
			left++
			if s.GetStatus() != string(cairn.StatusDeleting) {
				names = append(names, s.GetId())
			}
		}
		return left == 0, p.remove(ctx, names)
	})
}

func (p *inProcess) remove(ctx context.Context, ids []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64)
	for _, id := range ids {
		group.Go(func() error {
			_, err := p.all.Shares().DeleteShare(ctx, &cairnv1.DeleteShareRequest{Share: id})
			if errors.Is(err, cairn.ErrNotFound) {
				return nil
			}
			return err
		})
	}
	return group.Wait()
}

// mostShares is how many shares may be there at the same time: all servers are in this process, and each share takes a few
// open files of the limit.
func mostShares(b *testing.B) int {
	b.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	return min(4000, int(limit.Cur/5))
}

// tempDir is on the disk that the probes measure.
func tempDir(b *testing.B, name string) string {
	b.Helper()
	dir := filepath.Join(b.TempDir(), name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	return dir
}
