package sim

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// lock is what an encryption root shares with the file systems that inherit its key.
type lock struct {
	root   *dataset
	cipher string
	format string // of the key
	key    string
	loaded bool
}

func (d *dataset) locked() bool { return d.lock != nil && !d.lock.loaded }

// takeRoot makes what was promoted the encryption root in the place of its origin. Nobody has loaded the key of the new root.
func (d *dataset) takeRoot(from *dataset) {
	if l := from.lock; l != nil && l.root == from {
		l.root, l.loaded = d, false
	}
}

func (l *lock) report(name string) string {
	switch {
	case l == nil:
		return "-"
	case name == "encryptionroot":
		return l.root.name
	case l.loaded:
		return "available"
	}
	return "unavailable"
}

// lookupKey is a property that encryption sets once, or its keylocation.
func (z *ZFS) lookupKey(e entity, name string) value {
	def, l := properties[name], e.home().lock
	switch {
	case l == nil || name == "keylocation" && l.root != e.set:
		if v, ok := e.own(name); ok {
			return v
		}
		return value{def.value, "default"}
	case name == "encryption":
		return value{l.cipher, "-"}
	case name == "keyformat":
		return value{l.format, "-"}
	case name == "keylocation":
		return value{"prompt", "local"}
	}
	return value{def.value, "-"}
}

// takeKey gives a new file system its key: its own, which comes over stdin, or that of what it is made from. It returns the
// settings that have nothing to do with encryption.
func (d *dataset) takeKey(set []setting, up *dataset, origin *snapshot, stdin []byte) ([]setting, error) {
	var rest []setting
	own := make(map[string]string)
	for _, s := range set {
		switch s.name {
		case "encryption", "keyformat", "keylocation":
			own[s.name] = s.value
		default:
			rest = append(rest, s)
		}
	}
	inherited := up.lock
	if origin != nil {
		inherited = origin.of.lock
	}
	if len(own) == 0 {
		if origin == nil && inherited != nil && !inherited.loaded {
			return nil, fail("encryption root's key is not loaded or provided")
		}
		d.lock = inherited
		return rest, nil
	}
	return rest, d.newLock(own, origin, stdin)
}

func (d *dataset) newLock(own map[string]string, origin *snapshot, stdin []byte) error {
	cipher := own["encryption"]
	if cipher == "on" {
		cipher = "aes-256-gcm"
	}
	switch {
	case origin != nil, own["keylocation"] != "" && own["keylocation"] != "prompt":
		return unknown("a key of a clone, or in a file")
	case cipher == "" || cipher == "off":
		if own["keyformat"] != "" && cipher != "off" || cipher == "off" && len(own) > 1 {
			return fail("Encryption must be turned on to set encryption properties.")
		}
		d.props["encryption"] = "off"
		return nil
	case own["keyformat"] == "":
		return fail("Keyformat required for new encryption root.")
	}
	key, err := readKey(own["keyformat"], stdin)
	if err != nil {
		return err
	}
	d.lock = &lock{root: d, cipher: cipher, format: own["keyformat"], key: key, loaded: true}
	return nil
}

// readKey takes a key of a format from stdin.
func readKey(format string, stdin []byte) (string, error) {
	key := strings.TrimSuffix(string(stdin), "\n")
	switch format {
	case "raw":
		key = string(stdin)
		switch {
		case len(key) < 32:
			return "", fail("Raw key too short (expected 32).")
		case len(key) > 32:
			return "", fail("Raw key too long (expected 32).")
		}
	case "hex":
		_, err := hex.DecodeString(key)
		switch {
		case len(key) < 64:
			return "", fail("Hex key too short (expected 64).")
		case len(key) > 64:
			return "", fail("Hex key too long (expected 64).")
		case err != nil:
			return "", fail("Invalid hex character detected.")
		}
	case "passphrase":
		switch {
		case len(key) < 8:
			return "", fail("Passphrase too short (min 8).")
		case len(key) > 512:
			return "", fail("Passphrase too long (max 512).")
		}
	default:
		return "", unknown("keyformat %q", format)
	}
	return key, nil
}

// keyFailure is fail for commands about keys, which exit in a way of their own.
func keyFailure(format string, args ...any) error {
	return &failure{text: fmt.Errorf(format, args...).Error(), code: 255}
}

func (z *ZFS) loadKey(c *call) error {
	d, err := z.openSet(c.args[0])
	if err != nil {
		return err
	}
	const what = "Key load error"
	l := d.lock
	switch {
	case l == nil:
		return keyFailure("%s: '%s' is not encrypted.", what, d.name)
	case l.root != d:
		return keyFailure("%s: Keys must be loaded for encryption root of '%s' (%s).", what, d.name, l.root.name)
	case l.loaded:
		return keyFailure("%s: Key already loaded for '%s'.", what, d.name)
	}
	key, err := readKey(l.format, c.stdin)
	if err != nil {
		return keyFailure("%s: %w", what, err)
	}
	if key != l.key {
		return keyFailure("%s: Incorrect key provided for '%s'.", what, d.name)
	}
	l.loaded = true
	return nil
}

func (z *ZFS) unloadKey(c *call) error {
	d, err := z.openSet(c.args[0])
	if err != nil {
		return err
	}
	const what = "Key unload error"
	l := d.lock
	switch {
	case l == nil:
		return keyFailure("%s: '%s' is not encrypted.", what, d.name)
	case l.root != d:
		return keyFailure("%s: Keys must be unloaded for encryption root of '%s' (%s).", what, d.name, l.root.name)
	case !l.loaded:
		return keyFailure("%s: Key already unloaded for '%s'.", what, d.name)
	}
	for _, other := range z.sets {
		if other.lock == l && other.mountedAt != "" {
			return keyFailure("%s: '%s' is busy.", what, d.name)
		}
	}
	l.loaded = false
	return nil
}

func (z *ZFS) changeKey(c *call) error {
	d, err := z.openSet(c.args[0])
	if err != nil {
		return err
	}
	const what = "Key change error"
	l := d.lock
	switch {
	case l != nil && l.root != d:
		return unknown("%s", c.cmd)
	case l == nil:
		return keyFailure("%s: Dataset not encrypted.", what)
	case !l.loaded:
		return keyFailure("%s: Key must be loaded.", what)
	}
	key, err := readKey(l.format, c.stdin)
	if err != nil {
		return keyFailure("%s: %w", what, err)
	}
	l.key = key
	return nil
}
