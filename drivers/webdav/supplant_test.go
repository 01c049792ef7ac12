package webdav

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMovedNameNeverHoldsTheOld: a client whose MOVE onto a directory was not answered moves again. At no moment, at which a crash might find
// it, may the name that it moves from hold what it moves onto.
func TestMovedNameNeverHoldsTheOld(t *testing.T) {
	f := newFixture(t)
	f.write("new/file", "new")
	f.write("old/file", "old")
	f.export()
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	f.must(err)
	defer unix.Close(watch)
	_, err = unix.InotifyAddWatch(watch, f.spec.Root, unix.IN_MOVED_FROM|unix.IN_MOVED_TO)
	f.must(err)

	f.want(204, "MOVE", "/new", "", "Destination: /old")

	f.onDisk("old/file", "new")
	f.absent("new")
	f.stagingIsEmpty()
	if got, want := moves(t, watch), []string{"from old", "from new", "to old"}; !slices.Equal(got, want) {
		t.Errorf("renames in the share: %q, want %q", got, want)
	}
}

// moves reads from an inotify descriptor which names renames have taken away and made.
func moves(t *testing.T, watch int) (all []string) {
	t.Helper()
	buffer := make([]byte, 4096)
	n, err := unix.Read(watch, buffer)
	if err != nil {
		t.Fatal(err)
	}
	for rest := buffer[:n]; len(rest) > 0; {
		mask, size := binary.NativeEndian.Uint32(rest[4:]), binary.NativeEndian.Uint32(rest[12:])
		name := string(bytes.TrimRight(rest[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], "\x00"))
		if mask&unix.IN_MOVED_FROM != 0 {
			all = append(all, "from "+name)
		} else {
			all = append(all, "to "+name)
		}
		rest = rest[unix.SizeofInotifyEvent+size:]
	}
	return all
}
