package fence

import (
	"fmt"
	"os"
	"strings"

	"github.com/cairn-storage/cairn"
)

// KernelPorts is where the kernel lists what its NFS server of this network namespace listens on.
const KernelPorts = "/proc/fs/nfsd/portlist"

// CheckPorts returns nil if the gate is before every port of the server: cairn.ErrNotSupported names another one, or RDMA,
// which does not pass the packet filter. fs.ErrNotExist if the kernel has no NFS server yet.
func (g *Gate) CheckPorts() error {
	if g.Ports == "" {
		return nil
	}
	text, err := os.ReadFile(g.Ports)
	if err != nil {
		return fmt.Errorf("ports of the NFS server: %w", err)
	}
	want := fmt.Sprint(g.Port)
	for line := range strings.Lines(string(text)) {
		transport, port, _ := strings.Cut(strings.TrimSpace(line), " ")
		if transport != "tcp" && transport != "udp" || port != want {
			return fmt.Errorf("the NFS server listens on %s port %q too, and the gate is before TCP and UDP port %s only: %w", transport, port, want, cairn.ErrNotSupported)
		}
	}
	return nil
}
