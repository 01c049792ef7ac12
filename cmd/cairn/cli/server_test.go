package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn/rpc/client"
)

// TestClusterInit: the first administrator's configuration is written beside the data directory, for its owner only, and its
// path is all that stdout gets. A file that is in the way is found before anything is made.
func TestClusterInit(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "cairn.toml")
	text := fmt.Sprintf("name = \"n1\"\ndata_dir = %q\n", filepath.Join(dir, "data"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := filepath.Join(dir, "cairn-admin.toml")
	if err := os.WriteFile(admin, []byte("of another cluster"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"cluster", "init", "--config", config, "--name", "berlin"}
	if o := cairnCommand(t.Context(), run{args: args}); o.code != exitConflict || o.stdout != "" {
		t.Fatalf("exit code %d: %q %s", o.code, o.stdout, o.stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !os.IsNotExist(err) {
		t.Errorf("a cluster was made whose administrator has no key: %v", err)
	}
	if err := os.Remove(admin); err != nil {
		t.Fatal(err)
	}
	if o := cairnCommand(t.Context(), run{args: args}); o.code != exitOK || o.stdout != admin+"\n" {
		t.Fatalf("exit code %d: %q %s", o.code, o.stdout, o.stderr)
	}
	// A run that was killed is repeated: it may have left the key half written, or have done everything but to say so.
	left := filepath.Join(dir, ".cairn-admin.toml.tmp")
	if err := os.WriteFile(left, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := cairnCommand(t.Context(), run{args: args}); o.code != exitOK || o.stdout != admin+"\n" {
		t.Errorf("a second time: exit code %d: %q %s", o.code, o.stdout, o.stderr)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("what a killed run left of the key is still there: %v", err)
	}
	if info, err := os.Stat(admin); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
	if cfg, err := client.LoadConfig(admin); err != nil || strings.Join(cfg.Addresses, " ") != "127.0.0.1:7450" {
		t.Errorf("configuration %v, %v", cfg.Addresses, err)
	}
}

// TestJoinReadsStdin: a token that is none is refused in one line, whether it comes as an argument or from stdin, and is
// never shown.
func TestJoinReadsStdin(t *testing.T) {
	config := filepath.Join(t.TempDir(), "cairn.toml")
	if err := os.WriteFile(config, []byte("data_dir = \"/nonexistent/data\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []run{
		{args: []string{"node", "join", "c2VjcmV0", "--config", config}},
		{args: []string{"node", "join", "-", "--config", config}, stdin: "c2VjcmV0\n"},
	} {
		o := cairnCommand(t.Context(), r)
		if o.code != exitUsage || strings.Count(o.stderr, "\n") != 1 || strings.Contains(o.stderr, "c2VjcmV0") {
			t.Errorf("exit code %d: %s", o.code, o.stderr)
		}
	}
}
