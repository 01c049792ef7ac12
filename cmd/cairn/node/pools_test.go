package node

import (
	"slices"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// TestProtocols: a pool claims what the node's exporters really serve of it.
func TestProtocols(t *testing.T) {
	both := map[cairn.Protocol]drivers.Exporter{cairn.ProtocolWebDAV: nil, cairn.ProtocolNFS: nil}
	kernel, ganesha := &NFSConfig{Server: nfsKernel}, &NFSConfig{Server: nfsGanesha}
	const nfs, webdav = cairn.ProtocolNFS, cairn.ProtocolWebDAV
	for name, c := range map[string]struct {
		driver   string
		nfs      *NFSConfig
		enforced drivers.Enforcement
		unseen   error
		want     []cairn.Protocol
	}{
		"zfs":                         {driverZFS, kernel, drivers.EnforcedByFileSystem, nil, []cairn.Protocol{nfs}},
		"dir, kernel":                 {driverDir, kernel, drivers.EnforcedByFileSystem, nil, []cairn.Protocol{webdav}},
		"dir, Ganesha":                {driverDir, ganesha, drivers.EnforcedByFileSystem, nil, []cairn.Protocol{nfs, webdav}},
		"dir, Ganesha, nobody holds":  {driverDir, ganesha, drivers.EnforcedByExporter, nil, []cairn.Protocol{webdav}},
		"dir, Ganesha, not held":      {driverDir, &NFSConfig{Server: nfsGanesha, IgnoreSize: true}, drivers.EnforcedByExporter, nil, []cairn.Protocol{nfs, webdav}},
		"btrfs, Ganesha":              {driverBtrfs, ganesha, drivers.EnforcedByFileSystem, nil, []cairn.Protocol{nfs, webdav}},
		"btrfs, Ganesha does not see": {driverBtrfs, ganesha, drivers.EnforcedByFileSystem, cairn.ErrNotSupported, []cairn.Protocol{webdav}},
	} {
		p := pool{config: PoolConfig{Driver: c.driver}}
		if got := p.protocols(both, c.nfs, drivers.Info{Enforcement: c.enforced}, c.unseen); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for name, c := range map[string]struct {
		driver string
		nfs    *NFSConfig
	}{
		"no NFS":     {driverBtrfs, nil},
		"the kernel": {driverBtrfs, kernel},
		"not btrfs":  {driverDir, ganesha},
		"told so":    {driverBtrfs, &NFSConfig{Server: nfsGanesha, Subvolumes: true}},
	} {
		if err := (pool{config: PoolConfig{Driver: c.driver}}).unseen(c.nfs); err != nil {
			t.Errorf("%s: %v, although Ganesha need not be asked", name, err)
		}
	}
}
