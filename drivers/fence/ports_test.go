package fence

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

func TestCheckPorts(t *testing.T) {
	for name, tt := range map[string]struct {
		ports string
		says  string // "" if the gate is enough
	}{
		"its port, IPv4 and IPv6": {"tcp 2049\ntcp 2049\n", ""},
		"and UDP":                 {"udp 2049\ntcp 2049\n", ""},
		"a server that is down":   {"", ""},
		"another port too":        {"tcp 2049\ntcp 20490\n", `tcp port "20490"`},
		"another port alone":      {"udp 2050\n", `udp port "2050"`},
		"RDMA":                    {"rdma 20049\ntcp 2049\n", `rdma port "20049"`},
		"RDMA at the same number": {"rdma 2049\n", `rdma port "2049"`},
		"what is not known":       {"tcp\n", `tcp port ""`},
	} {
		t.Run(name, func(t *testing.T) {
			g := &Gate{Runner: newFilter(), Table: "cairn_nfs", Port: 2049, Ports: filepath.Join(t.TempDir(), "portlist")}
			if err := g.CheckPorts(); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("no server: %v, want fs.ErrNotExist", err)
			}
			if err := g.Check(t.Context()); err != nil {
				t.Errorf("a node whose server is not there yet is unfit: %v", err)
			}
			if err := os.WriteFile(g.Ports, []byte(tt.ports), 0o600); err != nil {
				t.Fatal(err)
			}
			for what, err := range map[string]error{"ports": g.CheckPorts(), "fitness": g.Check(t.Context())} {
				if tt.says == "" && err != nil || tt.says != "" && (!errors.Is(err, cairn.ErrNotSupported) || !strings.Contains(err.Error(), tt.says)) {
					t.Errorf("%s: %v, want %q", what, err, tt.says)
				}
			}
		})
	}
}

// A server that has got another port since the node was started is not opened to clients.
func TestPortSinceTheStart(t *testing.T) {
	w := newWorld(t)
	w.active("r1", 1)
	w.until = time.Now().Add(time.Hour)
	w.start()
	w.keeper.config.Gate.Ports = filepath.Join(t.TempDir(), "portlist")
	export := func(ports string) error {
		if err := os.WriteFile(w.keeper.config.Gate.Ports, []byte(ports), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := w.keeper.Export(t.Context(), share("r1", 1))
		return err
	}
	if err := export("tcp 2049\ntcp 20490\n"); !errors.Is(err, cairn.ErrNotSupported) || len(w.exports) != 0 {
		t.Errorf("%v, exports %v", err, w.exports)
	}
	if err := export("tcp 2049\n"); err != nil || len(w.exports) != 1 {
		t.Errorf("%v, exports %v", err, w.exports)
	}
}

// A server that gets another port while the gate is open loses what must be fenced, and nothing else; also if that takes more than
// one attempt. Without the port it is served again.
func TestPortWhileOpen(t *testing.T) {
	w := newWorld(t)
	w.active("r1", 1)
	w.until = time.Now().Add(time.Hour)
	w.start()
	ports := filepath.Join(t.TempDir(), "portlist")
	w.keeper.config.Gate.Ports = ports
	listen := func(list string) {
		t.Helper()
		if err := os.WriteFile(ports, []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plain := share("r2", 1)
	plain.Fenced = false
	listen("tcp 2049\n")
	for _, spec := range []drivers.ExportSpec{share("r1", 1), plain} {
		if _, err := w.keeper.Export(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	w.keeper.look(t.Context())
	if len(w.exports) != 2 || !w.filter.passes() {
		t.Fatalf("before: %v", w.exports)
	}
	listen("tcp 2049\ntcp 20490\n")
	w.stuck = true
	w.keeper.look(t.Context())
	if w.filter.passes() {
		t.Error("the gate is open although there is a way round it")
	}
	w.stuck = false
	w.keeper.look(t.Context())
	if _, served := w.exports[share("r1", 1).ID]; served || len(w.exports) != 1 {
		t.Errorf("served beside the gate: %v", w.exports)
	}
	if _, err := w.keeper.Export(t.Context(), share("r1", 1)); !errors.Is(err, cairn.ErrNotSupported) {
		t.Errorf("served again: %v", err)
	}
	listen("tcp 2049\n")
	w.keeper.look(t.Context())
	if _, err := w.keeper.Export(t.Context(), share("r1", 1)); err != nil || len(w.exports) != 2 {
		t.Errorf("not served again: %v, %v", err, w.exports)
	}
}
