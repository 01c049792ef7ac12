package ganesha

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// What a program is linked with, by the beginnings of the names, and where the linker looks besides where the program says.
const (
	libBtrfs   = "libbtrfsutil.so"
	libGanesha = "libganesha_nfsd.so"
)

var libDirs = []string{"/usr/local/lib64", "/usr/local/lib", "/usr/lib64", "/usr/lib", "/usr/lib/ganesha", "/usr/lib64/ganesha"}

// CheckSubvolumes returns nil if the Ganesha of that name was built to find the subvolumes of btrfs: it serves none that is not
// mounted otherwise. cairn.ErrNotSupported if it certainly was not; any other error says that this cannot be told.
func CheckSubvolumes(binary string) error {
	path, err := tool.Find(binary)
	if err != nil {
		return fmt.Errorf("ganesha: %w", err)
	}
	libraries, dirs, err := linkedWith(path)
	if err != nil {
		return err
	}
	for _, library := range slices.Clone(libraries) { // the code is in a library of Ganesha's own
		if !strings.HasPrefix(library, libGanesha) {
			continue
		}
		more, err := linkedWithLibrary(library, append(dirs, libDirs...))
		if err != nil {
			return err
		}
		libraries = append(libraries, more...)
	}
	if !slices.ContainsFunc(libraries, func(name string) bool { return strings.HasPrefix(name, libBtrfs) }) {
		return fmt.Errorf("ganesha: %s was built without libbtrfsutil and finds no subvolumes of btrfs: %w", path, cairn.ErrNotSupported)
	}
	return nil
}

func linkedWithLibrary(name string, dirs []string) ([]string, error) {
	for _, dir := range dirs {
		libraries, _, err := linkedWith(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return libraries, err
	}
	return nil, fmt.Errorf("ganesha: %s: is in none of %s", name, strings.Join(dirs, ", "))
}

// linkedWith reads the libraries that a program or a library needs, and where it says that they are.
func linkedWith(path string) (libraries, dirs []string, err error) {
	file, err := elf.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("ganesha: %s: %w", path, err)
	}
	defer file.Close()
	if libraries, err = file.ImportedLibraries(); err != nil {
		return nil, nil, fmt.Errorf("ganesha: %s: %w", path, err)
	}
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		texts, err := file.DynString(tag)
		if err != nil {
			return nil, nil, fmt.Errorf("ganesha: %s: %w", path, err)
		}
		for _, text := range texts {
			for _, dir := range strings.Split(text, ":") {
				dirs = append(dirs, strings.ReplaceAll(dir, "$ORIGIN", filepath.Dir(path)))
			}
		}
	}
	return libraries, dirs, nil
}
