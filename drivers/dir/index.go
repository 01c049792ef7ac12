package dir

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
)

// ident tells a file from the same file with other contents: the kernel sets the time of change with every write, and no
// client can.
type ident struct {
	inode inode
	ctime unix.Timespec
	size  int64
}

func identOf(st *unix.Stat_t) ident { return ident{inode{st.Dev, st.Ino}, st.Ctim, st.Size} }

const (
	// indexesKept is how many snapshots of a replica have an index, and indexMost how many files one may hold.
	indexesKept = 3
	indexMost   = 200_000
	// clockTick is more than two writes may lie apart and have the same time of change. What was written just before a
	// snapshot is therefore in no index.
	clockTick = 50 * time.Millisecond
)

// index says what the files of a replica's data were when a snapshot was cut. It saves reading them, and nothing else:
// without it, contents are compared.
type index struct {
	snap  cairn.SnapshotID
	files map[string]ident
}

// indexes are those of the newest snapshots that this process has cut.
type indexes struct {
	mu  sync.Mutex
	all map[cairn.ReplicaID][]index
}

// makeIndex looks at data that nobody writes to. A tree that is too large has none.
func makeIndex(ctx context.Context, snap cairn.SnapshotID, data string) (index, error) {
	x := index{snap: snap, files: make(map[string]ident)}
	settled := time.Now().Add(-clockTick)
	err := walkTree(ctx, data, func(n *node) error {
		if n.is(unix.S_IFREG) && time.Unix(n.stat.Ctim.Unix()).Before(settled) && len(x.files) < indexMost {
			x.files[n.path] = identOf(&n.stat)
		}
		return nil
	})
	return x, err
}

func (i *indexes) keep(id cairn.ReplicaID, x index) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.all == nil {
		i.all = make(map[cairn.ReplicaID][]index)
	}
	list := append(slices.Clone(i.all[id]), x)
	i.all[id] = list[max(0, len(list)-indexesKept):]
}

// of returns the files of a snapshot; nil knows none.
func (i *indexes) of(id cairn.ReplicaID, snap cairn.SnapshotID) map[string]ident {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, x := range i.all[id] {
		if x.snap == snap {
			return x.files
		}
	}
	return nil
}

// sameContents reads two files of the same size.
func sameContents(ctx context.Context, a, b string) (bool, error) {
	x, err := os.OpenFile(a, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := os.OpenFile(b, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, err
	}
	defer y.Close()
	left, right := make([]byte, 128<<10), make([]byte, 128<<10)
	for {
		n, err := io.ReadFull(x, left)
		m, other := io.ReadFull(y, right)
		switch end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); {
		case err != nil && !end:
			return false, err
		case !bytes.Equal(left[:n], right[:m]):
			return false, nil
		case end:
			return true, nil
		case other != nil:
			return false, other
		case ctx.Err() != nil:
			return false, ctx.Err()
		}
	}
}
