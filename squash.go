package cairn

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Squash is whom an NFS server takes clients' users for. The zero value is what the node's configuration says.
type Squash struct {
	Mode SquashMode
	// UID and GID are who they become, of a mode that makes anybody somebody else.
	UID, GID uint32
}

// SquashMode says which users of clients become somebody else.
type SquashMode string

// Modes of squashing.
const (
	SquashNone SquashMode = "none" // root of a client is root of the share
	SquashRoot SquashMode = "root"
	SquashAll  SquashMode = "all"
)

// Nobody is who users become unless metadata says otherwise.
const Nobody uint32 = 65534

// Keys of metadata that change how a share is exported. All others with NFSPrefix are refused: a typing error would leave root be root.
const (
	NFSPrefix  = "nfs:"
	KeySquash  = NFSPrefix + "squash"
	KeyAnonUID = NFSPrefix + "anonuid"
	KeyAnonGID = NFSPrefix + "anongid"
)

// ParseSquash reads what metadata of a share says. Errors: ErrInvalid for values, ErrNotSupported for such keys on a share that is
// not served over NFS.
func ParseSquash(protocol Protocol, metadata map[string]string) (Squash, error) {
	s := Squash{Mode: SquashMode(metadata[KeySquash])}
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if !strings.HasPrefix(key, NFSPrefix) {
			continue
		}
		value, known := metadata[key], key == KeySquash || key == KeyAnonUID || key == KeyAnonGID
		switch {
		case !known:
			return Squash{}, fmt.Errorf("metadata %.60q: of %s there are %s, %s and %s: %w", key, NFSPrefix, KeySquash, KeyAnonUID, KeyAnonGID, ErrInvalid)
		case protocol != ProtocolNFS:
			return Squash{}, fmt.Errorf("metadata %s: is for shares over nfs; this one is served over %s: %w", key, protocol, ErrNotSupported)
		case s.Mode != SquashNone && s.Mode != SquashRoot && s.Mode != SquashAll:
			return Squash{}, fmt.Errorf("metadata %s: is %.60q, want %s, %s or %s: %w", KeySquash, string(s.Mode), SquashNone, SquashRoot, SquashAll, ErrInvalid)
		case key == KeySquash:
			continue
		case s.Mode == SquashNone:
			return Squash{}, fmt.Errorf("metadata %s: nobody becomes it with %s=%s; want %s or %s: %w", key, KeySquash, SquashNone, SquashRoot, SquashAll, ErrInvalid)
		}
		// -1 is "no change" to chown(2), and nobody's.
		if id, err := strconv.ParseUint(value, 10, 32); err != nil || id == 1<<32-1 || strconv.FormatUint(id, 10) != value {
			return Squash{}, fmt.Errorf("metadata %s: is %.60q, want a number from 0 to 4294967294: %w", key, value, ErrInvalid)
		}
	}
	if s.Mode == SquashRoot || s.Mode == SquashAll {
		s.UID, s.GID = anonymous(metadata[KeyAnonUID]), anonymous(metadata[KeyAnonGID])
	}
	return s, nil
}

func anonymous(text string) uint32 {
	if id, err := strconv.ParseUint(text, 10, 32); err == nil {
		return uint32(id)
	}
	return Nobody
}
