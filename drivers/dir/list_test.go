package dir_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
)

// A delete, or a delete and whatever comes next under that name, between List's look at the mark of a replica and its look at
// the data is no damage. List holds no lock, so it is stopped at that point by a mark that is a pipe.
func TestListBesideDelete(t *testing.T) {
	tests := map[string]func(t *testing.T, home string){
		"gone":     func(*testing.T, string) {},
		"replaced": func(t *testing.T, home string) { must(t, os.Mkdir(home, 0o700)) },
	}
	for name, next := range tests {
		t.Run(name, func(t *testing.T) {
			var p *dir.Pool
			var path string
			p, path = open(t, func(name string, do func() error) error {
				if name != "COMMIT take replica away" {
					return do()
				}
				return listAround(t, p, path, func() error {
					err := do()
					next(t, filepath.Join(path, "r1"))
					return err
				})
			})
			create(t, p, "r1")
			must(t, p.Delete(t.Context(), "r1", 1))
		})
	}
}

// listAround lists the pool while away moves r1 to the work directory, which happens when List has opened its mark for the
// last time.
func listAround(t *testing.T, p *dir.Pool, path string, away func() error) error {
	mark := filepath.Join(path, "r1/.cairn-replica")
	content, err := os.ReadFile(mark)
	must(t, err)
	must(t, os.Rename(mark, mark+".kept"))
	must(t, unix.Mkfifo(mark, 0o600))
	must(t, unix.Mkfifo(mark+".second", 0o600))
	type listing struct {
		objects []drivers.Object
		err     error
	}
	ended := make(chan listing, 1)
	go func() {
		objects, err := p.List(t.Context())
		ended <- listing{objects, err}
	}()
	whose, err := os.OpenFile(mark, os.O_WRONLY, 0) // when this returns, List has opened it, to see whose mark it is
	must(t, err)
	must(t, os.Rename(mark+".second", mark))
	answer(t, whose, content)
	replica, err := os.OpenFile(mark, os.O_WRONLY, 0) // and now to see the replica
	must(t, err)
	moved := away()
	kept := filepath.Join(path, ".cairn-work/r1/.cairn-replica")
	must(t, os.Rename(kept+".kept", kept))
	answer(t, replica, content)
	got := <-ended
	must(t, got.err)
	if len(got.objects) != 1 || got.objects[0].ID != "r1" || got.objects[0].Ready {
		t.Errorf("List: %+v; want r1, half removed", got.objects)
	}
	return moved
}

func answer(t *testing.T, pipe *os.File, content []byte) {
	_, err := pipe.Write(content)
	must(t, err)
	must(t, pipe.Close())
}
