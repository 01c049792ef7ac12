package webdav

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLeftoversAreTriedAgain: what a disk that fails has kept in the staging directory is removed by the next change when the disk is well again, and
// is counted until then.
func TestLeftoversAreTriedAgain(t *testing.T) {
	f := newFixture(t)
	f.write("file", "precious")
	f.write("tree/a", "aaaa")
	f.spec.EnforceSize = true
	f.export()
	x, _ := f.e.known(f.spec.ID)
	well := x.staging
	failing, err := os.OpenRoot(f.spec.Staging)
	f.must(err)
	f.must(failing.Close())

	x.staging = failing
	f.want(204, "DELETE", "/file", "")
	f.want(204, "DELETE", "/tree", "")
	f.must(os.WriteFile(filepath.Join(f.spec.Staging, "webdav-upload"), []byte("half"), 0o600))
	x.discard(entry{x.stagingDir, "webdav-upload"})
	f.want(201, "MKCOL", "/made", "") // the disk still fails
	if left, err := os.ReadDir(f.spec.Staging); err != nil || len(left) != 3 {
		t.Fatalf("left while the disk fails: %v (%v)", left, err)
	}
	if got := f.used(); got != 12 {
		t.Errorf("%d bytes are counted while what was deleted is there, want 12", got)
	}

	x.staging = well
	f.want(201, "PUT", "/new", "new")
	f.stagingIsEmpty()
	f.countedRight()
}
