package ganesha

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/cairn-storage/cairn/drivers/nfs/record"
)

// file is the configuration file and what it has to be.
type file struct {
	path string

	mu     sync.Mutex
	text   []byte
	wanted []uint16 // the numbers of its exports
}

// set makes the file what it has to be from now on, also if it cannot be written now: then Ganesha cannot start either.
func (f *file) set(text []byte, wanted []uint16) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text, f.wanted = text, wanted
	return f.write()
}

// prepare makes the file right before Ganesha starts.
func (f *file) prepare() ([]uint16, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wanted, f.write()
}

func (f *file) write() error {
	if edited, err := f.edited(); err == nil && !edited {
		return nil
	}
	if err := record.WriteFile(f.path, f.text, 0o600); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// is reports whether the file is this text, and has to be.
func (f *file) is(text []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	edited, err := f.edited()
	return err == nil && !edited && bytes.Equal(text, f.text)
}

// touched reports whether somebody else has changed the file.
func (f *file) touched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	edited, err := f.edited()
	return err == nil && edited
}

// edited reports whether the file is not what it has to be.
func (f *file) edited() (bool, error) {
	found, err := record.ReadFile(f.path)
	if err != nil {
		return false, fmt.Errorf("configuration: %w", err)
	}
	return !bytes.Equal(found, f.text), nil
}
