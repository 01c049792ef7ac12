package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cairn-storage/cairn"
)

// secretFile is a file that holds a key: mode 0600, there whole or not at all, and never in place of another one by
// mistake. It is opened before the key is made, so that no key is lost because its file cannot be written.
type secretFile struct {
	path  string
	force bool
	temp  *os.File
}

// openSecret prepares the file. Without force there must be none of that name.
func openSecret(path string, force bool) (*secretFile, error) {
	// The name of the preparation is fixed, so that the secret which a run that was killed has left there is found and removed.
	prepared := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.Remove(prepared); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("file %s: %w", path, cause(err))
	}
	if !force {
		switch _, err := os.Lstat(path); {
		case err == nil:
			return nil, fileExists(path)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("file %s: %w", path, err)
		}
	}
	temp, err := os.OpenFile(prepared, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", path, cause(err))
	}
	return &secretFile{path: path, force: force, temp: temp}, nil
}

// cause leaves out the name of the temporary file, which means nothing to anybody.
func cause(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

func fileExists(path string) error {
	return fmt.Errorf("file %s: %w; choose another one, or pass --force", path, cairn.ErrExists)
}

// commit writes the file and gives it its name.
func (f *secretFile) commit(data []byte) error {
	_, err := f.temp.Write(data)
	if err = errors.Join(err, f.temp.Sync()); err != nil {
		return fmt.Errorf("file %s: %w", f.path, err)
	}
	// failpoint: secret-written
	if f.force {
		err = os.Rename(f.temp.Name(), f.path)
	} else if err = os.Link(f.temp.Name(), f.path); errors.Is(err, fs.ErrExist) {
		return fileExists(f.path)
	}
	if err != nil {
		return fmt.Errorf("file %s: %w", f.path, err)
	}
	// failpoint: secret-named
	return syncDir(filepath.Dir(f.path))
}

// close takes away what is left of the preparation.
func (f *secretFile) close() error {
	err := f.temp.Close()
	if removed := os.Remove(f.temp.Name()); !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
