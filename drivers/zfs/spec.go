package zfs

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// ownProperties are set by this package and by nobody else.
var ownProperties = map[string]bool{
	"mountpoint": true, "canmount": true, "refquota": true, "quota": true, "reservation": true, "refreservation": true,
	"readonly": true, "snapdir": true, "sharenfs": true, "sharesmb": true, "zoned": true,
	"encryption": true, "keyformat": true, "keylocation": true, "pbkdf2iters": true,
}

func plainProperty(name string) bool { return regexp.MustCompile(`^[a-z][a-z0-9]*$`).MatchString(name) }

// tuned are the extra specs that are properties of OpenZFS, and the values that they may have.
var tuned = map[string]*regexp.Regexp{
	"zfs:compression": regexp.MustCompile(`^(on|off|lz4|lzjb|zle|gzip|gzip-[1-9]|zstd|zstd-([1-9]|1[0-9])|zstd-fast|zstd-fast-[1-9]0?)$`),
	"zfs:dedup":       regexp.MustCompile(`^(on|off|verify|sha256|sha512|skein|sha256,verify|sha512,verify|skein,verify)$`),
	"zfs:recordsize":  regexp.MustCompile(`^(512|[1248]K|16K|32K|64K|128K|256K|512K|1M)$`),
	"zfs:atime":       regexp.MustCompile(`^(on|off)$`),
}

// keySpec names a file on the node with the key of an encrypted replica: 32 bytes, or 64 hexadecimal digits.
const keySpec = "zfs:key_file"

var ciphers = regexp.MustCompile(`^(on|aes-(128|192|256)-(ccm|gcm))$`)

// wishes are what a CreateSpec asks for, as options of zfs create.
type wishes struct {
	limits   []string // those that every new dataset is given
	creation []string // limits, and what cannot be said of a clone or a stream
	key      []byte   // for stdin; nil without encryption
	keyFile  string   // where it was read
}

// wishes checks the whole specification before anything is made.
func (o *op) wishes(spec drivers.CreateSpec) (wishes, error) {
	if err := cairn.CheckSize(spec.Size); err != nil {
		return wishes{}, err
	}
	properties := maps.Clone(o.options)
	if properties == nil {
		properties = make(map[string]string)
	}
	thick, reserve := o.thick, int64(-1)
	for _, key := range slices.Sorted(maps.Keys(spec.Specs)) {
		value := spec.Specs[key]
		allowed, isTuned := tuned[key]
		bad := fmt.Errorf("extra spec %s=%q: %w", key, value, cairn.ErrInvalid)
		switch {
		case !strings.HasPrefix(key, "zfs:"), key == "zfs:encryption", key == keySpec:
		case isTuned && allowed.MatchString(value):
			properties[strings.TrimPrefix(key, "zfs:")] = value
		case key == "zfs:thick" && (value == "true" || value == "false"):
			thick = value == "true"
		case key == "zfs:snapshot_reserve_percent":
			percent, err := strconv.ParseInt(value, 10, 64)
			if err != nil || percent < 0 || percent > 10_000 {
				return wishes{}, bad
			}
			reserve = percent
		case isTuned, key == "zfs:thick":
			return wishes{}, bad
		default:
			return wishes{}, fmt.Errorf("extra spec %s: unknown to this driver: %w", key, cairn.ErrInvalid)
		}
	}
	w := wishes{limits: limits(spec.Size, thick, reserve)}
	w.creation = slices.Clone(w.limits)
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		w.creation = append(w.creation, "-o", key+"="+properties[key])
	}
	return w, w.encrypt(spec.Specs)
}

// limits hold a replica of that size to it. Snapshots take what they need unless reserve, in percent of the size, is not -1.
func limits(size int64, thick bool, reserve int64) []string {
	set := []string{"refquota=" + bytes(size), "cairn:size=" + bytes(size), "snapdir=hidden"}
	if reserve >= 0 {
		set = append(set, "quota="+bytes(withReserve(size, reserve)), "cairn:reserve="+strconv.FormatInt(reserve, 10))
	}
	if thick {
		set = append(set, "refreservation="+bytes(size), "cairn:thick=on")
	}
	return options(set...)
}

// withReserve is the size and what its snapshots may take beside it.
func withReserve(size, percent int64) int64 { return size + size/100*percent + size%100*percent/100 }

// encrypt adds the options of native encryption, and reads the key.
func (w *wishes) encrypt(specs map[string]string) error {
	cipher, file := specs["zfs:encryption"], specs[keySpec]
	if cipher == "" && file == "" || cipher == "off" && file == "" {
		return nil
	}
	if !ciphers.MatchString(cipher) {
		return fmt.Errorf("extra spec zfs:encryption=%q: want on, or a cipher such as aes-256-gcm, beside %s: %w", cipher, keySpec, cairn.ErrInvalid)
	}
	format, key, err := readKey(file)
	if err != nil {
		return err
	}
	w.key, w.keyFile = key, file
	w.creation = append(w.creation, options("encryption="+cipher, "keyformat="+format, "keylocation=prompt", "cairn:key="+file)...)
	return nil
}

// checkEncrypted refuses to take what is there in the clear for what is to be encrypted.
func (w wishes) checkEncrypted(r row) error {
	if w.keyFile != "" && r["keystatus"] == "" {
		return fmt.Errorf("extra spec zfs:encryption: %s is there already and is not encrypted: %w", r["name"], cairn.ErrInvalid)
	}
	return nil
}

// readKey reads the file of a key and says in which of the formats of OpenZFS it is.
func readKey(file string) (format string, key []byte, err error) {
	if !path.IsAbs(file) || path.Clean(file) != file {
		return "", nil, fmt.Errorf("extra spec %s=%q: want the absolute path of a file on the node: %w", keySpec, file, cairn.ErrInvalid)
	}
	key, err = os.ReadFile(file)
	if err != nil {
		return "", nil, fmt.Errorf("encryption key: %w: %w", cairn.ErrUnavailable, err)
	}
	digits := strings.TrimSuffix(string(key), "\n")
	if _, err := hex.DecodeString(digits); err == nil && len(digits) == 64 {
		return "hex", []byte(digits + "\n"), nil
	}
	if len(key) == 32 {
		return "raw", key, nil
	}
	return "", nil, fmt.Errorf("encryption key %s: has %d bytes; want 32, or 64 hexadecimal digits: %w", file, len(key), cairn.ErrInvalid)
}

// create runs a command that makes a dataset, with its key on stdin.
func (o *op) create(w wishes, args []string, more ...string) error {
	_, err := o.run(tool.Cmd{Name: "zfs", Args: append(args, more...), Stdin: w.key})
	return err
}

// loadKey hands the kernel the key of an encrypted replica, from the file that its specification named. While a revert is under
// way, the key may be that of a dataset beside it; a promotion has unloaded it.
func (o *op) loadKey(f found) error {
	file := f.row["cairn:key"]
	if file == "" {
		return fmt.Errorf("dataset %s: its encryption key is not loaded and nobody has said where it is: %w", f.at, cairn.ErrUnavailable)
	}
	_, key, err := readKey(file)
	if err != nil {
		return fmt.Errorf("dataset %s: %w", f.at, err)
	}
	_, err = o.run(tool.Cmd{Name: "zfs", Args: []string{"load-key", cmp.Or(f.row["encryptionroot"], f.at)}, Stdin: key})
	return err
}
