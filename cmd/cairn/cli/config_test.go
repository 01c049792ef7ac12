package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn/rpc/client"
)

// TestConfigPrecedence: --config wins over CAIRN_CONFIG, which wins over the home directory. CAIRN_ADDR and --project
// replace what the file says.
func TestConfigPrecedence(t *testing.T) {
	dir := t.TempDir()
	file := func(path, project string) string {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		writeConfig(t, path, client.Config{Addresses: []string{project + ":7450"}, Project: project})
		return path
	}
	file(".config/cairn/config.toml", "of-home")
	env, flag := file("env.toml", "of-env"), file("flag.toml", "of-flag")
	for _, c := range []struct {
		name               string
		flags              flags
		env                map[string]string
		project, addresses string
	}{
		{"home", flags{}, map[string]string{"HOME": dir}, "of-home", "of-home:7450"},
		{"CAIRN_CONFIG", flags{}, map[string]string{"HOME": dir, "CAIRN_CONFIG": env}, "of-env", "of-env:7450"},
		{"--config", flags{config: flag}, map[string]string{"HOME": dir, "CAIRN_CONFIG": env}, "of-flag", "of-flag:7450"},
		{"CAIRN_ADDR", flags{}, map[string]string{"CAIRN_CONFIG": env, "CAIRN_ADDR": "a:1, b:2,"}, "of-env", "a:1 b:2"},
		{"--project", flags{project: "mine"}, map[string]string{"CAIRN_CONFIG": env}, "mine", "of-env:7450"},
	} {
		t.Run(c.name, func(t *testing.T) {
			app := &App{Getenv: func(key string) string { return c.env[key] }}
			cfg, err := app.clientConfig(&c.flags)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(cfg.Addresses, " "); cfg.Project != c.project || got != c.addresses {
				t.Errorf("project %q, addresses %q, want %q, %q", cfg.Project, got, c.project, c.addresses)
			}
		})
	}
}

// TestConfigProblems: what is wrong with a configuration is one line, with exit code 2.
func TestConfigProblems(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.toml")
	if err := os.WriteFile(bad, []byte("addresses = [\"a:1\"]\nadresses = 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.toml")
	writeConfig(t, good, client.Config{Addresses: []string{"a:1"}})
	for _, c := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"nothing set", nil, "neither CAIRN_CONFIG nor HOME is set; set CAIRN_CONFIG"},
		{"no file", map[string]string{"HOME": dir}, ".config/cairn/config.toml: does not exist; set CAIRN_CONFIG"},
		{"unknown key", map[string]string{"CAIRN_CONFIG": bad}, `line 2: unknown key "adresses"`},
		{"no address", map[string]string{"CAIRN_CONFIG": good, "CAIRN_ADDR": " , "}, "names no address; set it to host:port"},
		{"no port", map[string]string{"CAIRN_CONFIG": good, "CAIRN_ADDR": "host"}, `address "host": want host:port`},
		{"no key", map[string]string{"CAIRN_CONFIG": good}, "client certificate and key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := cairnCommand(t.Context(), run{args: []string{"share", "list"}, env: c.env})
			if o.code != exitUsage || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, c.want) || o.stdout != "" {
				t.Errorf("exit code %d, stderr %q, want %q", o.code, o.stderr, c.want)
			}
		})
	}
}
