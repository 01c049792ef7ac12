package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/nfs"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// nfsShare is a share on a directory that a server's Ganesha serves, as a client with libnfs sees it: no NFS in the kernel is
// needed.
type nfsShare struct {
	*cluster
	*cairnv1.Share
	url string // without a file
}

// startNFS makes one server whose pool, a directory, is served by Ganesha, and a share.
func startNFS(t *testing.T) *nfsShare {
	t.Helper()
	for _, program := range []string{"ganesha.nfsd", "nfs-cat", "nfs-cp"} {
		if _, err := exec.LookPath(program); err != nil || os.Geteuid() != 0 {
			t.Skipf("needs root and %s: apt-get install nfs-ganesha nfs-ganesha-vfs libnfs-utils", program)
		}
	}
	c := prepare(t)
	s, err := c.Prepare()
	c.check(err)
	port := freePort(t)
	nfs := fmt.Sprintf("[nfs]\nserver = \"ganesha\"\nport = %d\ngrace = \"3s\"\nignore_size = true\n\n[[pool]]", port)
	text, err := os.ReadFile(s.File)
	c.check(err)
	c.check(os.WriteFile(s.File, []byte(strings.Replace(string(text), "[[pool]]", nfs, 1)), 0o600))
	c.check(c.Start(t.Context(), 1))
	var made cairnv1.Share
	c.must(&made, "share", "create", "docs", "--size", "1GiB", "--proto", "nfs")
	if len(made.GetLocations()) != 1 {
		t.Fatalf("locations %v, want one", made.GetLocations())
	}
	where := made.GetLocations()[0].GetUrl()
	hostPort := net.JoinHostPort(s.Host, fmt.Sprint(port))
	if !strings.HasPrefix(where, "nfs://"+hostPort+"/") {
		t.Fatalf("location %s, want one at %s", where, hostPort)
	}
	return &nfsShare{c, &made, strings.Replace(where, hostPort, s.Host, 1) + "/%s?version=4&nfsport=" + fmt.Sprint(port)}
}

// freePort is one that nobody listens on and that no outgoing connection gets.
func freePort(t *testing.T) int {
	t.Helper()
	for port := 20000 + os.Getpid()%10000; port < 32000; port++ {
		if listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			if err := listener.Close(); err != nil {
				t.Fatal(err)
			}
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// run runs a client. Its error has what it said.
func run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return string(out), err
}

func (s *nfsShare) at(file string) string { return fmt.Sprintf(s.url, file) }

// reads waits until the file is read: Ganesha has a period of grace.
func (s *nfsShare) reads(file, want string) {
	s.t.Helper()
	s.await(time.Minute, "a read of "+file, func(ctx context.Context) (bool, error) {
		out, err := run(ctx, "nfs-cat", s.at(file))
		return out == want, err
	})
}

func (s *nfsShare) refused(what, name string, args ...string) {
	s.t.Helper()
	if out, err := run(s.t.Context(), name, args...); err == nil || !strings.Contains(err.Error(), "NFS4ERR") {
		s.t.Errorf("%s: %q, %v; want an answer that refuses it", what, out, err)
	}
}

// TestShareOverNFS: a share on a directory is served by Ganesha to a real NFS client, with rules that hold.
func TestShareOverNFS(t *testing.T) {
	t.Parallel()
	s := startNFS(t)
	s.refused("a read without a rule", "nfs-cat", s.at("file"))
	s.must(nil, "access", "allow", "docs", "ip", "127.0.0.0/8", "rw")
	local := filepath.Join(t.TempDir(), "file")
	s.check(os.WriteFile(local, []byte("over NFS"), 0o600))
	s.await(time.Minute, "a file written over NFS", func(ctx context.Context) (bool, error) {
		_, err := run(ctx, "nfs-cp", local, s.at("file"))
		return err == nil, err
	})
	s.reads("file", "over NFS")
	host := s.Server(s.GetReplicas()[0].GetNode())
	found, err := filepath.Glob(filepath.Join(host.PoolDir(), s.GetReplicas()[0].GetId(), "*", "file"))
	s.check(err)
	if len(found) != 1 {
		t.Fatalf("the file is in %v, want it once in the pool's directory", found)
	}
	if got, err := os.ReadFile(found[0]); err != nil || string(got) != "over NFS" {
		t.Errorf("the pool holds %q (%v)", got, err)
	}

	s.records(filepath.Dir(found[0]))
	s.becomes(local, found[0], 1234, 1235)

	s.must(nil, "access", "deny", "docs", "ip", "127.0.0.0/8")
	s.refused("a read after the rule was taken away", "nfs-cat", s.at("file"))
	s.must(nil, "access", "allow", "docs", "ip", "127.0.0.1", "ro")
	s.reads("file", "over NFS")
	s.refused("a write with an ro rule", "nfs-cp", local, s.at("other"))

	s.check(host.Kill())
	s.check(host.Start())
	s.check(s.AwaitUp(t.Context(), host))
	s.reads("file", "over NFS")
	s.must(nil, "share", "delete", "docs", "--yes")
	s.check(s.AwaitEmptyPools(t.Context()))
}

// records writes, lists and reads files as the clients of a chaos run do.
func (s *nfsShare) records(root string) {
	s.t.Helper()
	location, err := url.Parse(s.GetLocations()[0].GetUrl())
	s.check(err)
	client := nfs.New(nfs.Config{Address: location.Host, Path: location.Path, Name: "records", Timeout: time.Minute})
	defer client.Close()
	s.check(client.Put(s.t.Context(), "empty", nil))
	s.check(client.Put(s.t.Context(), "long", bytes.Repeat([]byte("0123456789"), 20_000)))
	s.check(client.Put(s.t.Context(), "long", bytes.Repeat([]byte("abcdefghij"), 20_000)))
	names, err := client.List(s.t.Context())
	s.check(err)
	slices.Sort(names)
	if want := []string{"empty", "file", "long"}; !slices.Equal(names, want) {
		s.t.Errorf("the share holds %q, want %q", names, want)
	}
	for _, name := range names {
		got, err := client.Get(s.t.Context(), name)
		s.check(err)
		if there, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Equal(got, there) {
			s.t.Errorf("%s is read with %d bytes, and %d are on the disk (%v)", name, len(got), len(there), err)
		}
	}
	if _, err := client.Get(s.t.Context(), "nothing"); err == nil {
		s.t.Error("a file that is not there is read")
	}
	s.check(client.Put(s.t.Context(), "after", []byte("on a connection of its own, since the last one ended with the error")))
}

// becomes expects that a change of metadata decides, while clients go on, whose a file is that root of a client writes.
func (s *nfsShare) becomes(local, first string, uid, gid uint32) {
	s.t.Helper()
	s.check(os.Chmod(filepath.Dir(first), 0o777)) // the share's own directory is root's
	s.must(nil, "share", "set", "docs", "nfs:squash=all", fmt.Sprintf("nfs:anonuid=%d", uid), fmt.Sprintf("nfs:anongid=%d", gid))
	attempt := 0
	s.await(time.Minute, "a file of whom root becomes", func(ctx context.Context) (bool, error) {
		attempt++
		name := fmt.Sprintf("squashed-%d", attempt)
		if _, err := run(ctx, "nfs-cp", local, s.at(name)); err != nil {
			return false, err
		}
		info, err := os.Stat(filepath.Join(filepath.Dir(first), name))
		if err != nil {
			return false, err
		}
		owner := info.Sys().(*syscall.Stat_t)
		if owner.Uid != uid || owner.Gid != gid {
			return false, fmt.Errorf("%s is of %d:%d", name, owner.Uid, owner.Gid)
		}
		return true, nil
	})
	s.must(nil, "share", "set", "docs", "--remove", "nfs:squash", "--remove", "nfs:anonuid", "--remove", "nfs:anongid")
}
