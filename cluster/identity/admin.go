package identity

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cairn-storage/cairn"
)

// LoadAdmin reads the certificate of the first administrator, which stays in the data directory of the node that made the
// cluster: cairn.ErrNotFound on every other one. It is committed together with the identity, so no crash can leave a
// cluster that nobody may administer.
func LoadAdmin(dataDir string) (Bundle, error) {
	path := filepath.Join(identityDir(dataDir), fileAdmin)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Bundle{}, fmt.Errorf("data directory %s: has no administrator's certificate: the cluster was not made here: %w", dataDir, cairn.ErrNotFound)
	}
	if err != nil {
		return Bundle{}, fmt.Errorf("identity: %w", err)
	}
	var blocks [3][]byte // certificate, key, authority: the order of Bundle.PEM
	for i := range blocks {
		block, rest := pem.Decode(data)
		if block == nil {
			return Bundle{}, fmt.Errorf("%s: has %d of 3 parts: %w", path, i, cairn.ErrCorrupt)
		}
		blocks[i], data = pem.EncodeToMemory(block), rest
	}
	return Bundle{User: adminName, CertificatePEM: blocks[0], KeyPEM: blocks[1], AuthorityPEM: blocks[2]}, nil
}
