package fsm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/cespare/xxhash/v2"

	"github.com/cairn-storage/cairn"
)

// TestOldSnapshot restores a stream that the first version wrote. If it fails, nodes could not read their own snapshots after
// an upgrade: raise streamVersion and read the old one too.
func TestOldSnapshot(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "snapshot-v1.hex"))
	if err != nil {
		t.Fatal(err)
	}
	old, err := hex.DecodeString(string(bytes.ReplaceAll(text, []byte("\n"), nil)))
	if err != nil {
		t.Fatal(err)
	}
	m := New()
	if err := m.Restore(bytes.NewReader(old)); err != nil {
		t.Fatal(err)
	}
	checkState(t, m)
	if got := stream(t, m); !bytes.Equal(got, old) {
		t.Errorf("the same state is now written as\n%s", wrapped(got))
	}
	if fresh := stream(t, smallMachine(t)); !bytes.Equal(fresh, old) {
		t.Errorf("the same commands now lead to another state:\n%s", wrapped(fresh))
	}
}

func wrapped(data []byte) string {
	var out bytes.Buffer
	for text := hex.EncodeToString(data); text != ""; {
		n := min(len(text), 120)
		fmt.Fprintln(&out, text[:n])
		text = text[n:]
	}
	return out.String()
}

// TestRestoreRefuses: a stream that is cut off anywhere, has any bit changed, anything behind its end or an earlier state leaves the state as
// it was.
func TestRestoreRefuses(t *testing.T) {
	good := stream(t, smallMachine(t))
	m := New()
	apply(t, m, &CreateUser{cairn.User{Name: "keep", Role: cairn.UserAdmin}})
	before := m.View()
	refuse := func(what string, r io.Reader, want error) {
		t.Helper()
		err := m.Restore(r)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if m.View() != before {
			t.Fatalf("%s: the state has changed", what)
		}
	}
	for n := range good {
		refuse(fmt.Sprintf("cut off after %d bytes", n), bytes.NewReader(good[:n]), cairn.ErrCorrupt)
		bad := bytes.Clone(good)
		bad[n] ^= 1
		if err := m.Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("bit changed in byte %d: restored", n)
		}
		if m.View() != before {
			t.Fatalf("bit changed in byte %d: the state has changed", n)
		}
	}
	refuse("a byte behind the end", bytes.NewReader(append(bytes.Clone(good), 0)), cairn.ErrCorrupt)
	refuse("a stream that breaks", io.MultiReader(bytes.NewReader(good[:100]), iotest.ErrReader(os.ErrDeadlineExceeded)), os.ErrDeadlineExceeded)
	refuse("a stream that breaks at its end", io.MultiReader(bytes.NewReader(good), iotest.ErrReader(os.ErrDeadlineExceeded)), os.ErrDeadlineExceeded)
	other := bytes.Clone(good)
	other[len(streamMagic)] = 2
	refuse("another version", bytes.NewReader(other), cairn.ErrUpgrade)
	refuse("an earlier state", bytes.NewReader(stream(t, New())), cairn.ErrPrecondition)
}

// TestRestoreChecksMeaning changes streams and makes their checksum fit again: what is left are the checks of count, digest,
// order and encoding.
func TestRestoreChecksMeaning(t *testing.T) {
	good := stream(t, smallMachine(t))
	trailer := len(good) - 1 - 8 - 8 - 8
	resum := func(data []byte) []byte {
		body := data[:len(data)-8]
		return binary.BigEndian.AppendUint64(bytes.Clone(body), xxhash.Sum64(body))
	}
	row := func(table string, value ...byte) []byte {
		out := append([]byte{byte(len(table))}, table...)
		out = binary.BigEndian.AppendUint64(out, uint64(len(value)))
		return append(out, value...)
	}
	insert := func(more []byte) []byte {
		return resum(append(append(bytes.Clone(good[:trailer]), more...), good[trailer:]...))
	}
	count, digest := bytes.Clone(good), bytes.Clone(good)
	count[trailer+8]++
	digest[trailer+16]++
	huge := append([]byte{5}, "nodes"...)
	huge = binary.BigEndian.AppendUint64(huge, 1<<62)
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"another count", resum(count), cairn.ErrCorrupt},
		{"another digest", resum(digest), cairn.ErrCorrupt},
		{"a table of a later version", insert(row("wormholes", 0xc0)), cairn.ErrUpgrade},
		{"a row that is no row", insert(row("nodes", 0xa1, 'x')), cairn.ErrCorrupt},
		{"a row that is no value", insert(row("nodes", 0xc1)), cairn.ErrCorrupt},
		{"a row out of order", insert(row("provisioned", 0x92, 0xa1, 'a', 0x01)), cairn.ErrCorrupt},
		{"a row in another encoding", insert(row("requests", 0x96, 0xa1, 'a', 0xcc, 0x01, 0x01, 0xa0, 0xa0, 0xa0)), cairn.ErrCorrupt},
		{"a length beyond all rows", insert(huge), cairn.ErrCorrupt},
	} {
		if err := New().Restore(bytes.NewReader(c.data)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestSnapshotIsFrozen writes a snapshot after the machine has gone on.
func TestSnapshotIsFrozen(t *testing.T) {
	m := smallMachine(t)
	want := stream(t, m)
	frozen := m.Snapshot()
	index := frozen.Index()
	apply(t, m, &DeleteSnapshot{ID: "p1"})
	for i := range 200 {
		apply(t, m, createShare(fmt.Sprintf("more%d", i), 1))
	}
	var got bytes.Buffer
	if _, err := frozen.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) || frozen.Index() != index {
		t.Errorf("the snapshot has changed with the machine: %v", err)
	}
}

func TestWriteToReportsErrors(t *testing.T) {
	_, err := smallMachine(t).Snapshot().WriteTo(failingWriter{})
	if !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v, want %v", err, os.ErrClosed)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

// FuzzRestore: no stream makes Restore panic or lets it keep half of it, and what is accepted is written back byte for byte.
func FuzzRestore(f *testing.F) {
	f.Add(stream(f, New()))
	f.Add(stream(f, smallMachine(f)))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := New()
		before := m.View()
		if err := m.Restore(bytes.NewReader(data)); err != nil {
			if m.View() != before {
				t.Fatal("a refused stream has changed the state")
			}
			return
		}
		if !bytes.Equal(stream(t, m), data) {
			t.Fatal("a restored state is written differently")
		}
	})
}
