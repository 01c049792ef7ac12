package ganesha

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/nfs/record"
)

// Squash says whom the server takes clients' users for.
type Squash string

// Squash modes; the same as those of package nfs.
const (
	SquashNone Squash = "no_root_squash"
	SquashRoot Squash = "root_squash"
	SquashAll  Squash = "all_squash"
)

const header = `# Written by Cairn for the Ganesha that it runs. Do not edit: changes are undone. Use "cairn access allow" and "deny".
`

// render is the whole configuration. tracing makes Ganesha say when the last request of an export that was taken away has
// ended; it would also log every request, so it is on only while somebody waits for that.
func (c Config) render(r *record.Record, served map[string]record.Entry, tracing bool) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(header)
	out.Write(r.Lines())
	level := "INFO"
	if tracing {
		level = "DEBUG"
	}
	fmt.Fprintf(&out, `
LOG { Default_Log_Level = EVENT; COMPONENTS { EXPORT = %s; } }
NFS_CORE_PARAM { Protocols = 4; NFS_Port = %d; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }
NFS_KRB5 { Active_krb5 = false; }
NFSv4 {
	Minor_Versions = 0, 1, 2;
	Grace_Period = %d;
	Lease_Lifetime = %d;
	RecoveryBackend = fs;
	RecoveryRoot = "%s";
	Only_Numeric_Owners = true;
}
EXPORT_DEFAULTS { Access_Type = NONE; SecType = sys; Protocols = 4; Transports = TCP; Squash = %s; }
`, level, c.Port, seconds(c.Grace), seconds(c.lease()), filepath.Join(c.StateDir, "recovery"), c.Squash)
	for _, name := range slices.Sorted(maps.Keys(served)) {
		if err := c.renderExport(&out, name, served[name]); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

func (c Config) renderExport(out *bytes.Buffer, name string, entry record.Entry) error {
	fmt.Fprintf(out, `EXPORT {
	Export_Id = %d;
	Path = "%s";
	Pseudo = "%s";
	FSAL { Name = VFS; }
`, entry.Number, entry.Spec.Root, c.path(name))
	switch s := entry.Spec.Squash; s.Mode {
	case "":
	case cairn.SquashNone:
		fmt.Fprintf(out, "\tSquash = %s;\n", SquashNone)
	default:
		fmt.Fprintf(out, "\tSquash = %s_squash; Anonymous_Uid = %d; Anonymous_Gid = %d;\n", s.Mode, s.UID, s.GID)
	}
	clients, err := record.Clients(entry.Spec.Rules, record.ReadOnly(entry.Spec))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, level := range []cairn.AccessLevel{cairn.AccessRO, cairn.AccessRW} {
		var list []string
		for _, client := range clients {
			if client.Level == level {
				list = append(list, client.String())
			}
		}
		if len(list) > 0 {
			fmt.Fprintf(out, "\tCLIENT { Clients = %s; Access_Type = %s; }\n", strings.Join(list, ", "), strings.ToUpper(string(level)))
		}
	}
	out.WriteString("}\n")
	return nil
}

// lease is how long a client that is silent keeps its locks; it renews them well within.
func (c Config) lease() time.Duration { return c.Grace * 2 / 3 }

func seconds(d time.Duration) int { return int(d / time.Second) }

func (c Config) path(name string) string { return filepath.Join(c.Root, name) }

func (c Config) file() string { return filepath.Join(c.StateDir, "ganesha.conf") }

// location is host:path, as mount(8) takes it; of another port than NFS's own it is the URL of RFC 2224.
func (c Config) location(addr netip.Addr, name string) string {
	host := addr.String()
	if addr.Is6() {
		host = "[" + host + "]"
	}
	if c.Port == nfsPort {
		return host + ":" + c.path(name)
	}
	return fmt.Sprintf("nfs://%s:%d%s", host, c.Port, c.path(name))
}

const nfsPort = 2049

func (c Config) validate() error {
	switch {
	case !isPlainPath(c.Root):
		return fmt.Errorf("root %q: want a clean absolute path of letters, digits and ._-/: %w", c.Root, cairn.ErrInvalid)
	case !isQuotable(c.StateDir):
		return fmt.Errorf("state directory %q: %s: %w", c.StateDir, wantQuotable, cairn.ErrInvalid)
	case len(c.ServiceAddresses) == 0:
		return fmt.Errorf("service addresses: want at least one: %w", cairn.ErrInvalid)
	case c.Port == 0:
		return fmt.Errorf("port: want 1 to 65535: %w", cairn.ErrInvalid)
	case c.Grace < minGrace || c.Grace > maxGrace:
		return fmt.Errorf("grace %v: want %v to %v: %w", c.Grace, minGrace, maxGrace, cairn.ErrInvalid)
	case c.Squash != SquashNone && c.Squash != SquashRoot && c.Squash != SquashAll:
		return fmt.Errorf("squash %q: want %s, %s or %s: %w", c.Squash, SquashNone, SquashRoot, SquashAll, cairn.ErrInvalid)
	}
	return nil
}

// Limits of the grace period: below, clients do not renew in time; above, Ganesha takes no more.
const (
	minGrace = 3 * time.Second
	maxGrace = 3 * time.Minute
)

func isPlainPath(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && !strings.ContainsFunc(path, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("._-/", c))
	})
}

// isQuotable reports whether the path can stand between quotes in Ganesha's configuration, which knows no escapes.
func isQuotable(path string) bool {
	return filepath.IsAbs(path) && !strings.ContainsFunc(path, func(c rune) bool { return c == '"' || c == '\\' || unicode.IsControl(c) })
}

const wantQuotable = "want an absolute path without quotes, backslashes and control characters"
