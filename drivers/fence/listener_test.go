package fence

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
)

func TestForeign(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(listener.Addr().(*net.TCPAddr).Port)
	self, nobody, parent := os.Getpid, func() int { return 0 }, os.Getppid
	if err := Foreign(port, self); err != nil {
		t.Errorf("our own: %v", err)
	}
	for name, own := range map[string]func() int{"nobody": nobody, "another process": parent, "one that has ended": func() int { return 1 << 30 }} {
		if err := Foreign(port, own); !errors.Is(err, cairn.ErrInUse) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Foreign(port, nobody); err != nil {
		t.Errorf("nobody listens: %v", err)
	}
}

// TestForeignServer: while a server that is not ours is behind the gate nothing is opened; one that takes the place of ours is
// shut off, and let through again when it is ours.
func TestForeignServer(t *testing.T) {
	w := newWorld(t)
	w.active("r1", 1)
	w.until = time.Now().Add(time.Hour)
	w.start()
	var foreign error = cairn.ErrInUse
	w.keeper.config.Foreign = func() error { return foreign }
	if _, err := w.keeper.Export(t.Context(), share("r1", 1)); !errors.Is(err, cairn.ErrInUse) || len(w.exports) != 0 || len(w.filter.tables) != 0 {
		t.Errorf("%v, exports %v", err, w.exports)
	}
	foreign = nil
	if _, err := w.keeper.Export(t.Context(), share("r1", 1)); err != nil || !w.filter.passes() {
		t.Fatalf("%v", err)
	}
	foreign = cairn.ErrInUse
	w.keeper.renewAt, w.keeper.lookAt = time.Time{}, time.Time{} // both are due
	w.keeper.look(t.Context())
	if w.filter.passes() {
		t.Error("clients are let through to a server that is not ours")
	}
	w.keeper.look(t.Context())
	if w.filter.passes() {
		t.Error("opened again, and the server still is not ours")
	}
	foreign = nil
	w.keeper.look(t.Context())
	if !w.filter.passes() {
		t.Error("not opened again")
	}
}
