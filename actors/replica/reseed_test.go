package replica

import (
	"testing"

	"github.com/cairn-storage/cairn"
)

// A replica that is fetched anew gets the sync point that the one which is away has, so that whoever takes over has a base in common
// with it.
func TestReseedKeepsTheBaseOfOthers(t *testing.T) {
	f := newFleet(t, 3, cairn.FailoverAuto)
	f.write("one")
	f.wait()
	f.wait()
	f.down("node-3")
	for _, text := range []string{"two", "three", "four"} {
		f.write(text)
		f.wait()
	}
	delete(f.nodes["node-2"].disk.objects, "r2")
	f.wait()
	f.wait()
	f.expect("r2", cairn.ReplicaInSync, "four")
	full := f.full
	f.down("node-1")
	f.failover("r2", "kept")
	f.up("node-3")
	f.wait()
	f.wait()
	f.expect("r3", cairn.ReplicaInSync, "four")
	if f.full != full {
		t.Errorf("%d full streams to a replica that had a base in common with the one before", f.full-full)
	}
}
