package systemtest

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
)

// rewrite changes the configuration of a server and returns the path of the changed copy.
func rewrite(t *testing.T, s *local.Server, old, changed string) string {
	t.Helper()
	text, err := os.ReadFile(s.File)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s does not hold %q", s.File, old)
	}
	path := filepath.Join(t.TempDir(), "cairn.toml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), old, changed)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// occupy listens on an address until the test ends.
func occupy(t *testing.T, address string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
}

// TestServerRefuses: a server that cannot serve as it is configured says why in one line and ends, and touches nothing.
func TestServerRefuses(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	first := c.Servers()[0]
	second, err := c.Prepare()
	c.check(err)
	before := c.agree()

	t.Run("unknown key", func(t *testing.T) {
		file := rewrite(t, second, "[[pool]]", "lisen = 1\n\n[[pool]]")
		c.serverTool("", "server", "--config", file).refused(t, exitUsage, "line 7", `"lisen"`)
	})
	t.Run("no configuration", func(t *testing.T) {
		c.serverTool("", "server", "--config", filepath.Join(t.TempDir(), "none")).refused(t, 1, "none", "no such file")
	})
	t.Run("not a member", func(t *testing.T) {
		c.serverTool("", "server", "--config", second.File).refused(t, exitNotFound, second.DataDir(), "cairn node join")
	})
	t.Run("second init", func(t *testing.T) {
		o := c.serverTool("", "cluster", "init", "--config", first.File, "--out", filepath.Join(t.TempDir(), "admin"))
		o.refused(t, exitConflict, first.DataDir())
	})
	t.Run("join of a member", func(t *testing.T) {
		c := c.in(t)
		token, err := c.Token(t.Context(), "n9")
		c.check(err)
		file := rewrite(t, first, `"n1"`, `"n9"`)
		c.serverTool(token, "node", "join", "-", "--config", file).refused(t, exitConflict, first.DataDir())
		before = c.agree() // the token is in it
	})
	t.Run("server that runs already", func(t *testing.T) {
		c.serverTool("", "server", "--config", first.File).refused(t, exitConflict, first.PoolDir(), "another process")
	})
	t.Run("data directory that is in use", func(t *testing.T) {
		c := c.in(t)
		file := rewrite(t, first, first.Host, second.Host) // other ports, and no pool
		text, err := os.ReadFile(file)
		c.check(err)
		text, _, _ = bytes.Cut(text, []byte("[[pool]]"))
		c.check(os.WriteFile(file, text, 0o600))
		c.serverTool("", "server", "--config", file).refused(t, exitConflict, first.DataDir(), "another process")
	})
	if after := c.agree(); after.Digest != before.Digest {
		t.Errorf("the state has changed: digest %s, was %s", after.Digest, before.Digest)
	}
	t.Run("port in use", func(t *testing.T) { testPortInUse(t, c.in(t), first) })
	t.Run("data directory of another node", func(t *testing.T) {
		file := rewrite(t, first, `"n1"`, `"n7"`)
		c.serverTool("", "server", "--config", file).refused(t, exitPrecondition, first.DataDir(), "n1", "n7")
	})
	t.Run("pool of another node", func(t *testing.T) { testForeignPool(t, c.in(t), first) })
	c.check(first.Start())
	c.check(c.AwaitUp(t.Context(), first))
}

// testPortInUse stops the server and lets somebody else have one of its ports.
func testPortInUse(t *testing.T, c *cluster, s *local.Server) {
	c.check(s.Stop(t.Context()))
	for what, address := range map[string]string{"API": s.Address(), "WebDAV": s.HTTPAddress()} {
		t.Run(what, func(t *testing.T) {
			occupy(t, address)
			c.serverTool("", "server", "--config", s.File).refused(t, exitConflict, address, "in use")
		})
	}
}

// testForeignPool starts the server with the pool directory of another cluster's node.
func testForeignPool(t *testing.T, c *cluster, s *local.Server) {
	other := start(t, 1).Servers()[0]
	file := rewrite(t, s, s.PoolDir(), other.PoolDir())
	c.serverTool("", "server", "--config", file).refused(t, exitConflict, other.PoolDir())
	c.check(other.Kill())
	c.serverTool("", "server", "--config", file).refused(t, exitPrecondition, other.PoolDir(), "belongs to pool")
}

// TestTokens: a token works once and while it is valid. A machine that is refused is no member of anything, and joins with the
// next good token as if nothing had been.
func TestTokens(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	second, err := c.Prepare()
	c.check(err)
	third, err := c.Prepare()
	c.check(err)
	token, err := c.Token(t.Context(), second.Name)
	c.check(err)
	c.check(c.Enrol(t.Context(), second, token))
	before := c.agree()

	refuse := func(name, file, token string, code int, says ...string) {
		t.Run(name, func(t *testing.T) {
			c.serverTool(token, "node", "join", "-", "--config", file).refused(t, code, says...)
			c.serverTool("", "server", "--config", third.File).refused(t, exitNotFound, "cairn node join")
		})
	}
	impostor := rewrite(t, third, `"n3"`, `"n2"`) // another machine with the same token
	refuse("used twice", impostor, token, exitPrecondition, "used")
	refuse("garbage", third.File, "bm9uc2Vuc2U", exitUsage, "token")
	refuse("empty", third.File, "", exitUsage, "token")
	if after := c.agree(); after.Digest != before.Digest {
		t.Errorf("the state has changed: digest %s, was %s", after.Digest, before.Digest)
	}
	expired := strings.TrimSpace(c.cli("node", "token", "create", "--name", third.Name, "--ttl", "1s").stdout)
	c.await(10*time.Second, "the end of the token", func(context.Context) (bool, error) {
		return strings.TrimSpace(c.cli("node", "token", "list", "-o", "name").stdout) == "", nil
	})
	refuse("expired", third.File, expired, exitPrecondition, "expired")
	wrongName, err := c.Token(t.Context(), "n8")
	c.check(err)
	refuse("for another node", third.File, wrongName, exitPrecondition, "n8", third.Name)
	good, err := c.Token(t.Context(), third.Name)
	c.check(err)
	c.check(c.Enrol(t.Context(), third, good))
	c.check(third.Start())
	c.check(c.AwaitUp(t.Context(), third))
}
