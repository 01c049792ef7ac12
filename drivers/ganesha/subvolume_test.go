package ganesha

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
)

// TestCheckSubvolumes looks at programs that are linked as Ganesha is, with a library that stands for libbtrfsutil and without.
func TestCheckSubvolumes(t *testing.T) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("needs a C compiler: cc")
	}
	dir := t.TempDir()
	build := func(out, source string, args ...string) string {
		t.Helper()
		code := filepath.Join(dir, "source.c")
		path := filepath.Join(dir, out)
		err := os.WriteFile(code, []byte(source), 0o600)
		args = append([]string{"-o", path, code, "-Wl,--no-as-needed", "-L" + dir, "-Wl,-rpath," + dir}, args...)
		if said, failed := exec.Command(compiler, args...).CombinedOutput(); errors.Join(err, failed) != nil {
			t.Skipf("cc: %v, %v: %s", err, failed, said)
		}
		return path
	}
	shared := func(name string, args ...string) {
		build(name, "", append([]string{"-shared", "-Wl,-soname," + name}, args...)...)
	}
	shared("libbtrfsutil.so.1")
	shared("libganesha_nfsd.so.4", "-l:libbtrfsutil.so.1")
	shared("libganesha_nfsd.so.5")
	const program = "int main(void) { return 0; }"
	for _, c := range []struct {
		name   string
		binary string
		want   error // nil: it can; cairn.ErrNotSupported: it cannot; else it cannot be told
	}{
		{"with", build("with", program, "-l:libganesha_nfsd.so.4"), nil},
		{"in one piece", build("whole", program, "-l:libbtrfsutil.so.1"), nil},
		{"without", build("without", program, "-l:libganesha_nfsd.so.5"), cairn.ErrNotSupported},
		{"not there", filepath.Join(dir, "none"), os.ErrNotExist},
	} {
		if err := CheckSubvolumes(c.binary); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if err := os.Remove(filepath.Join(dir, "libganesha_nfsd.so.5")); err != nil {
		t.Fatal(err)
	}
	err = CheckSubvolumes(filepath.Join(dir, "without"))
	if err == nil || errors.Is(err, cairn.ErrNotSupported) || !strings.Contains(fmt.Sprint(err), "libganesha_nfsd.so.5") {
		t.Errorf("a library is missing: %v", err)
	}
}
