package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
)

// sector is what a real disk writes whole.
const sector = 512

// unsynced is how to take back what was written to a file since it was synced last.
type unsynced struct {
	file   *os.File // of its own, to read and write
	size   int64    // when it was synced
	before []piece  // what the writes replaced, oldest first
	last   piece    // the newest write
}

type piece struct {
	at   int64
	data []byte
}

// writing notes what a write is going to replace.
func (d *Disk) writing(file *os.File, data []byte, at int64) error {
	if d.dirty == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	u, err := d.unsynced(file)
	if err != nil {
		return err
	}
	old := make([]byte, len(data))
	n, err := u.file.ReadAt(old, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	u.before = append(u.before, piece{at, old[:n]})
	u.last = piece{at, slices.Clone(data)}
	return nil
}

func (d *Disk) unsynced(file *os.File) (*unsynced, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	ino := info.Sys().(*syscall.Stat_t).Ino
	if u := d.dirty[ino]; u != nil {
		return u, nil
	}
	own, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	u := &unsynced{file: own, size: info.Size()}
	d.dirty[ino] = u
	return u, nil
}

// synced forgets how to take back what was written.
func (d *Disk) synced(file *os.File) error {
	if d.dirty == nil {
		return nil
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ino := info.Sys().(*syscall.Stat_t).Ino
	u := d.dirty[ino]
	if u == nil {
		return nil
	}
	delete(d.dirty, ino)
	return u.file.Close()
}

// Lose takes back what was written and not synced, as if power had failed; torn leaves half of the newest write to each file,
// up to a whole sector. It returns how many files have lost something. Whoever wrote must be dead.
func (d *Disk) Lose(torn bool) (files int, err error) {
	if d.dirty == nil {
		return 0, errors.New("disk: lose: it was mounted as one that loses nothing")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for ino, u := range d.dirty {
		var failed []error
		for _, p := range slices.Backward(u.before) {
			_, err := u.file.WriteAt(p.data, p.at)
			failed = append(failed, err)
		}
		failed = append(failed, u.file.Truncate(u.size))
		if half := len(u.last.data) / 2 / sector * sector; torn && half > 0 {
			_, err := u.file.WriteAt(u.last.data[:half], u.last.at)
			failed = append(failed, err)
		}
		if err := errors.Join(append(failed, u.file.Close())...); err != nil {
			return files, fmt.Errorf("disk: lose: %w", err)
		}
		delete(d.dirty, ino)
		files++
	}
	return files, nil
}
