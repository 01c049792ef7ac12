package systemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	wires "github.com/cairn-storage/cairn/chaos/network"
	"github.com/cairn-storage/cairn/chaos/nfs"
	"github.com/cairn-storage/cairn/drivers/tool"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// What TestNFSFailover's network has: servers on a bridge at wires.Base+1 and on, and a client.
const (
	bridgeBits     = "/24"
	clientName     = "client"
	clientAddress  = "10.77.0.100"
	serviceAddress = "10.77.0.200"
)

// attempt bounds one question to a server: what nobody answers an NFS client waits for without end.
const attempt = 5 * time.Second

// TestNFSFailover has real servers fail over a share over NFS, each with a Ganesha, a packet filter and addresses of its own,
// while a client knows nothing but the share's service address. First the active replica's server is killed, and an NFS server
// that went on without it is put in the place of the Ganesha that died with it; then the server is stopped for longer than its
// lease, and its Ganesha goes on. From when the next node serves, nobody reaches the old one.
func TestNFSFailover(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("makes networks and runs NFS servers: run as root")
	}
	for _, program := range []string{"ip", "nft", "mkfs.btrfs", "btrfs", "ganesha.nfsd", "nfs-cat", "nfs-cp"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: apt-get install btrfs-progs iproute2 nftables nfs-ganesha nfs-ganesha-vfs libnfs-utils", program)
		}
	}
	withWires(t, func(t *testing.T) (*wires.Network, error) { return bridge(t, 3) }, func(t *testing.T, n *network) {
		s := startFencedNFS(t, n)
		s.drilled()
		s.foreign()
		s.killed()
		s.stopped()
	})
}

// bridge connects n servers and a client to a bridge in this namespace.
func bridge(t *testing.T, n int) (*wires.Network, error) {
	t.Helper()
	made, err := wires.Prepare(t.Context())
	if err != nil {
		return nil, err
	}
	commands := [][]string{
		{"ip", "link", "add", "bridge", "type", "bridge"},
		{"ip", "addr", "add", wires.Gate + bridgeBits, "dev", "bridge"},
		{"ip", "link", "set", "bridge", "up"},
	}
	port := func(name, address string) {
		in := []string{"ip", "-n", name}
		commands = append(commands,
			[]string{"ip", "netns", "add", name},
			[]string{"ip", "link", "add", "to-" + name, "type", "veth", "peer", "name", "out", "netns", name},
			[]string{"ip", "link", "set", "to-" + name, "master", "bridge", "up"},
			append(in, "link", "set", "lo", "up"),
			append(in, "addr", "add", address+bridgeBits, "dev", "out"),
			append(in, "link", "set", "out", "up"))
	}
	for i := 1; i <= n; i++ {
		port(fmt.Sprintf("n%d", i), wires.Address(i))
	}
	port(clientName, clientAddress)
	return made, made.All(t.Context(), commands)
}

// fencedNFS is a share over NFS that fails over by itself, and what its client has written.
type fencedNFS struct {
	*copied
	id      string
	records []string // the files of the records, which are numbered from 0 on
}

func startFencedNFS(t *testing.T, n *network) *fencedNFS {
	t.Helper()
	var pools []string
	for range 3 {
		s, err := n.Prepare()
		n.check(err)
		text, err := os.ReadFile(s.File)
		n.check(err)
		changed := strings.NewReplacer("[[pool]]", "[nfs]\nserver = \"ganesha\"\ngrace = \"3s\"\nsubvolumes = true\n\n[[pool]]", `"dir"`, `"btrfs"`).Replace(string(text))
		n.check(os.WriteFile(s.File, []byte(changed), 0o600))
		mountBtrfs(t, s.PoolDir())
		pools = append(pools, s.PoolDir())
	}
	subvolumes(t, pools)
	n.check(n.Start(t.Context(), 3))
	n.must(nil, "type", "create", "safe", "--spec", "replication_type=dr", "--spec", "failover=auto", "--spec", "cairn:replication_interval=300ms")
	var made cairnv1.Share
	n.must(&made, "share", "create", "docs", "--size", "64MiB", "--proto", "nfs", "--type", "safe", "--replicas", "2", "--service-address", serviceAddress+bridgeBits)
	for _, who := range []string{clientAddress, "127.0.0.1"} {
		n.must(nil, "access", "allow", "docs", "ip", who, "rw")
	}
	s := &fencedNFS{copied: &copied{n.cluster, "docs", ""}, id: made.GetId()}
	s.awaitSync(2)
	return s
}

// mountBtrfs puts a file system on dir that can make snapshots of what clients write to: clients of NFS cannot be held.
func mountBtrfs(t *testing.T, dir string) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 512<<20))
	if err == nil {
		err = errors.Join(execute("mkfs.btrfs", "-q", image), execute("mount", "-o", "loop", image, dir))
	}
	if err != nil {
		t.Skipf("needs btrfs on a loop device: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// subvolumes has Ganeshas find what is in pools on btrfs.
func subvolumes(t *testing.T, pools []string) {
	t.Helper()
	listed, err := nfs.ListSubvolumes(t.Context(), t.TempDir(), pools)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := listed.Close(); err != nil {
			t.Error(err)
		}
	})
}

// killed kills the active replica's server.
func (s *fencedNFS) killed() {
	s.record(5)
	s.follow()
	old := s.host()
	stale := s.startStaleNFS(old)
	s.check(old.Kill())
	orphan := s.startOrphan(old)
	s.takenOver(old, stale, "kill -9")
	s.check(orphan.Kill())
	s.check(old.Start())
	s.rejoins(old, stale)
}

// stopped stops the active replica's server for as long as it takes that another one serves.
func (s *fencedNFS) stopped() {
	s.record(5)
	s.follow()
	old := s.host()
	stale := s.startStaleNFS(old)
	s.check(old.Signal(syscall.SIGSTOP))
	s.takenOver(old, stale, "SIGSTOP")
	s.check(old.Signal(syscall.SIGCONT))
	s.rejoins(old, stale)
}

// takenOver waits until the client goes on by the service address, with every record that was synced, although an NFS server
// goes on at the old node.
func (s *fencedNFS) takenOver(old *local.Server, stale *staleNFS, what string) {
	s.t.Helper()
	began, synced := time.Now(), len(s.records)
	s.awaitAway(old)
	s.record(1)
	stale.taken = time.Now()
	s.t.Logf("%s of the active replica's server to the next write by the service address: %s", what, time.Since(began).Round(time.Millisecond))
	for i := range synced {
		s.has(i)
	}
	s.await(time.Minute, "an NFS server that goes on at "+old.Name, func(ctx context.Context) (bool, error) {
		out, err := inside(ctx, old.Name, "nfs-cat", s.url("127.0.0.1", s.records[0]))
		return out == content(0), err
	})
	if out, err := inside(s.t.Context(), clientName, "nfs-cat", s.url(old.Host, s.records[0])); err == nil {
		s.t.Errorf("%s: %s still serves clients: %q", what, old.Name, out)
	}
	stale.flow(1)
	s.record(1)
}

// awaitAway waits until another server than old is to serve the share: what is written before that may go to old.
func (s *fencedNFS) awaitAway(old *local.Server) {
	s.t.Helper()
	for _, other := range s.Servers() {
		if other == old {
			continue
		}
		s.await(time.Minute, other.Name+" to know of the share away from "+old.Name, func(ctx context.Context) (bool, error) {
			ctx, cancel := context.WithTimeout(ctx, attempt)
			defer cancel()
			api, err := s.API(other)
			if err != nil {
				return false, err
			}
			share, err := showAt(ctx, api, s.name)
			return err == nil && share.GetReplicas()[0].GetNode() != old.Name, err
		})
	}
}

// rejoins waits until the old node has the standby. The client that writes to it has had nothing acknowledged.
func (s *fencedNFS) rejoins(old *local.Server, stale *staleNFS) {
	s.t.Helper()
	s.check(s.AwaitUp(s.t.Context(), old))
	s.awaitSync(2)
	stale.flow(1)
	if late := stale.end(); late.After(stale.taken) {
		s.t.Errorf("%s acknowledged a write that began %s after another server had acknowledged one", old.Name, late.Sub(stale.taken))
	}
	if s.host() == old {
		s.t.Errorf("the share is at %s again", old.Name)
	}
	for i := range s.records {
		s.has(i)
	}
}

// startOrphan runs an NFS server on what a killed server has left: the exports of before.
func (s *fencedNFS) startOrphan(old *local.Server) *tool.Process {
	s.t.Helper()
	dir := filepath.Join(old.DataDir(), "ganesha")
	log, err := os.Create(filepath.Join(s.t.TempDir(), "orphan.log"))
	s.check(err)
	defer log.Close()
	orphan, err := tool.Start(tool.Spec{
		Name: "ip", Args: []string{"netns", "exec", old.Name, "ganesha.nfsd", "-F", "-f", filepath.Join(dir, "ganesha.conf"), "-p", filepath.Join(dir, "ganesha.pid"), "-L", "STDERR"},
		Stdout: log, Stderr: log, OwnGroup: true,
	})
	s.check(err)
	s.t.Cleanup(func() {
		if err := orphan.Kill(); err != nil {
			s.t.Error(err)
		}
	})
	return orphan
}

func (s *fencedNFS) url(address, file string) string {
	return fmt.Sprintf("nfs://%s/srv/cairn/%s/%s?version=4", address, s.id, file)
}

func content(record int) string { return fmt.Sprintf("this is record %d\n", record) }

// record writes the next records by the service address, each of them until it is acknowledged: to a new file each time, since
// nfs-cp takes none that is there, as one of an attempt may be of which nothing was heard.
func (s *fencedNFS) record(n int) {
	s.t.Helper()
	for range n {
		file := filepath.Join(s.t.TempDir(), "record")
		s.check(os.WriteFile(file, []byte(content(len(s.records))), 0o600))
		name, attempts := "", 0
		s.await(time.Minute, fmt.Sprint("a write of record ", len(s.records)), func(ctx context.Context) (bool, error) {
			attempts++
			name = fmt.Sprintf("record-%d-%d", len(s.records), attempts)
			_, err := inside(ctx, clientName, "nfs-cp", file, s.url(serviceAddress, name))
			return err == nil, err
		})
		s.records = append(s.records, name)
	}
}

// has waits until a record is read by the service address, and fails the test if it is another one.
func (s *fencedNFS) has(record int) {
	s.t.Helper()
	s.await(time.Minute, fmt.Sprint("a read of record ", record), func(ctx context.Context) (bool, error) {
		out, err := inside(ctx, clientName, "nfs-cat", s.url(serviceAddress, s.records[record]))
		if err == nil && out != content(record) {
			err = local.Fatal(fmt.Errorf("it is %q", out))
		}
		return err == nil, err
	})
}

// inside runs an NFS client in a namespace, for a while: what nobody answers it would wait for without end.
func inside(ctx context.Context, namespace, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	return run(ctx, "ip", append([]string{"netns", "exec", namespace, name}, args...)...)
}

// staleNFS is a client that knows the address of one node only and goes on writing to it, whatever it is answered.
type staleNFS struct {
	taken time.Time // when another node had acknowledged a write
	stop  context.CancelFunc
	tried chan struct{}
	group sync.WaitGroup
	late  time.Time // when the newest acknowledged write began
}

// startStaleNFS returns when some of its writes have been acknowledged.
func (s *fencedNFS) startStaleNFS(at *local.Server) *staleNFS {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "split")
	s.check(os.WriteFile(file, []byte("x"), 0o600))
	ctx, stop := context.WithCancel(s.t.Context())
	c := &staleNFS{stop: stop, tried: make(chan struct{})}
	acknowledged := make(chan struct{}, 1)
	c.group.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			began := time.Now()
			if _, err := inside(ctx, clientName, "nfs-cp", file, s.url(at.Host, fmt.Sprintf("split-%s-%d", at.Name, i))); err == nil {
				c.late = began
				select {
				case acknowledged <- struct{}{}:
				default:
				}
			}
			select {
			case c.tried <- struct{}{}:
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond): // nobody counts; a refused connection must not spin
			}
		}
	})
	for range 3 {
		select {
		case <-acknowledged:
		case <-time.After(time.Minute):
			s.t.Fatalf("%s acknowledges no writes", at.Name)
		}
	}
	return c
}

// flow waits for so many attempts that begin after the call, and the one in progress.
func (c *staleNFS) flow(attempts int) {
	for range attempts + 1 {
		<-c.tried
	}
}

// end stops the client and returns when the newest write began that was acknowledged.
func (c *staleNFS) end() time.Time {
	c.stop()
	c.group.Wait()
	return c.late
}
