package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
)

// FuzzConfig: whatever an operator writes is taken or refused in one line as his mistake.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("name = \"n1\"\ndata_dir = \"/d\"\nzone = \"a\"\n[[pool]]\nname = \"p\"\ndriver = \"dir\"\npath = \"/p\"\nmax_size = \"1GiB\"\nreserved_percent = 10\n"))
	f.Add([]byte("data_dir = \"/d\"\n[[pool]]\nname = \"t\"\ndriver = \"zfs\"\n[pool.zfs]\ndataset = \"tank/cairn\"\n[gateway]\nwait = \"15s\"\n[nfs]\nserver = \"ganesha\"\n"))
	f.Add([]byte("data_dir = \"/d\"\nlisten = \":7450\"\nunknown = [1, {a = 2}]\n"))
	f.Add([]byte("a = 1\n\"\"\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := ParseConfig(data)
		if err == nil {
			cfg.Hosts()
			return
		}
		if !errors.Is(err, cairn.ErrInvalid) || strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%q", err)
		}
	})
}
