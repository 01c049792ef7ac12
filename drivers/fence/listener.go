package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
)

// Foreign returns cairn.ErrInUse if a program listens on the TCP port that is not the process own, which is 0 if that does not
// run: what it serves nobody has decided, and the gate would let clients through to it. Other errors say that it cannot be told.
func Foreign(port uint16, own func() int) error {
	var listening []string
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(table)
		if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
			continue
		} else if err != nil {
			return fmt.Errorf("NFS port %d: who listens is not known: %w", port, err)
		}
		listening = append(listening, listeners(string(text), port)...)
	}
	if len(listening) == 0 {
		return nil
	}
	sockets, err := socketsOf(own())
	if err != nil {
		return fmt.Errorf("NFS port %d: who listens is not known: %w", port, err)
	}
	for _, socket := range listening {
		if !slices.Contains(sockets, socket) {
			return fmt.Errorf("NFS port %d: a server listens there that Cairn has not started; stop it: %w", port, cairn.ErrInUse)
		}
	}
	return nil
}

// listeners are the inodes of the sockets of a table of the kernel's (proc_net_tcp(5)) that listen on the port.
func listeners(table string, port uint16) (inodes []string) {
	const local, state, inode, listens = 1, 3, 9, "0A"
	suffix := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) > inode && fields[state] == listens && strings.HasSuffix(fields[local], suffix) {
			inodes = append(inodes, fields[inode])
		}
	}
	return inodes
}

// socketsOf are the inodes of the sockets that a process has open; one that has ended has none.
func socketsOf(pid int) (inodes []string, err error) {
	if pid == 0 {
		return nil, nil
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes = append(inodes, strings.TrimSuffix(inode, "]"))
		}
	}
	return inodes, nil
}
