package nfs

import (
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/nfs/record"
)

const (
	shareID    cairn.ShareID    = "0198c000-0000-7000-8000-0000000000b1"
	snapshotID cairn.SnapshotID = "0198c000-0000-7000-8000-0000000000c1"
	sharePath                   = "/srv/cairn/" + string(shareID)
)

func testRecord(t *testing.T) *record.Record {
	t.Helper()
	r := record.New()
	live := drivers.ExportSpec{
		ID: drivers.ExportID{Replica: "0198c000-0000-7000-8000-0000000000a1"}, Share: shareID,
		Root: "/tank/odd name\n/etc *(rw)", Epoch: 4, Size: 1 << 30,
		Rules: []cairn.AccessRule{
			{ID: "r1", Kind: cairn.AccessIP, Who: "10.0.0.0/30", Level: cairn.AccessRO, State: cairn.RuleActive},
			{ID: "r2", Kind: cairn.AccessIP, Who: "10.0.0.2", Level: cairn.AccessRW, State: cairn.RuleActive},
			{ID: "r3", Kind: cairn.AccessIP, Who: "fd00::/64", Level: cairn.AccessRW, State: cairn.RuleActive},
			{ID: "r4", Kind: cairn.AccessIP, Who: "10.9.9.9", Level: cairn.AccessRW, State: cairn.RuleDenying},
		},
	}
	frozen := live
	frozen.ID.Snapshot, frozen.ReadOnly, frozen.Root = snapshotID, true, "/tank/.zfs/snapshot/s"
	frozen.Rules = live.Rules[1:3]
	for _, spec := range []drivers.ExportSpec{live, frozen} {
		if err := r.Put(spec); err != nil {
			t.Fatal(err)
		}
	}
	r.Fence("0198c000-0000-7000-8000-0000000000a2", 9)
	return r
}

// The golden file is what a reader of the documentation sees.
func TestRender(t *testing.T) {
	datadriven.RunTest(t, "testdata/render", func(t *testing.T, d *datadriven.TestData) string {
		r := testRecord(t)
		if d.HasArg("share") { // says whom its users become
			squash := cairn.Squash{Mode: cairn.SquashAll}
			d.ScanArgs(t, "share", (*string)(&squash.Mode), &squash.UID, &squash.GID)
			entry, _ := r.Entry(drivers.ExportID{Replica: "0198c000-0000-7000-8000-0000000000a1"})
			entry.Spec.Squash = squash
			if err := r.Put(entry.Spec); err != nil {
				t.Fatal(err)
			}
		}
		want, err := wanted(r.Served(), nil, "/srv/cairn", Squash(d.Cmd))
		if err != nil {
			return err.Error()
		}
		return string(render(r, want))
	})
}

func TestWanted(t *testing.T) {
	r := testRecord(t)
	count := func(moving map[string]bool) int {
		table, err := wanted(r.Served(), moving, "/srv/cairn", SquashAll)
		if err != nil {
			t.Fatal(err)
		}
		for g, opts := range table {
			if text := strings.Join(opts, ","); !strings.Contains(text, ",root_squash") || !strings.Contains(text, "all_squash,") {
				t.Errorf("%v: options %s do not squash", g, text)
			}
		}
		return len(table)
	}
	if n := count(nil); n != 6 {
		t.Errorf("%d grants; want 6", n)
	}
	if n := count(map[string]bool{string(shareID): true}); n != 2 {
		t.Errorf("%d grants while the share moves; want the 2 of the snapshot", n)
	}
	r.Withdraw(drivers.ExportID{Replica: "0198c000-0000-7000-8000-0000000000a1"})
	if n := count(nil); n != 2 {
		t.Errorf("%d grants after the share was withdrawn; want the 2 of the snapshot", n)
	}
}

func TestParse(t *testing.T) {
	output := strings.Join([]string{
		`/export\040of/others  10.0.0.0/8(sync,wdelay,hide,no_subtree_check,sec=sys,rw,secure,root_squash,no_all_squash)`,
		`/srv/cairn-of-others  *(rw)`,
		sharePath + `  fd00::/64(sync,wdelay,hide,no_subtree_check,mountpoint,sec=sys,rw)`,
		``,
	}, "\n")
	got, err := parse([]byte(output), "/srv/cairn")
	want := table{{sharePath, "fd00::/64"}: {"hide", "mountpoint", "no_subtree_check", "rw", "sec=sys", "sync", "wdelay"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parse: %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{sharePath, sharePath + " a b(rw)", sharePath + " a(rw"} {
		if got, err := parse([]byte(bad), "/srv/cairn"); err == nil {
			t.Errorf("parse of %q: %v; want an error", bad, got)
		}
	}
}

func TestChanges(t *testing.T) {
	one, two, three := grant{sharePath, "10.0.0.1"}, grant{sharePath, "10.0.0.2"}, grant{sharePath, "fd00::/64"}
	ro, rw := []string{"ro", "sync"}, []string{"rw", "sync"}
	tests := []struct {
		name       string
		have, want table
		run        []string
	}{
		{"nothing", table{one: {"hide", "ro", "sync"}}, table{one: ro}, nil},
		{"another level", table{one: {"hide", "ro", "sync"}}, table{one: rw}, []string{"-i -o rw,sync 10.0.0.1:" + sharePath}},
		{"grants come first", table{one: rw}, table{two: rw}, []string{"-i -o rw,sync 10.0.0.2:" + sharePath, "-u 10.0.0.1:" + sharePath}},
		{"levels apart", nil, table{one: ro, two: rw}, []string{"-i -o ro,sync 10.0.0.1:" + sharePath, "-i -o rw,sync 10.0.0.2:" + sharePath}},
		{"IPv6", table{three: rw}, nil, []string{"-u [fd00::]/64:" + sharePath}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var run []string
			for _, c := range changes(tt.have, tt.want) {
				run = append(run, strings.Join(c.args(), " "))
			}
			if !reflect.DeepEqual(run, tt.run) {
				t.Errorf("changes: %q; want %q", run, tt.run)
			}
		})
	}
	many := make(table)
	for i := range 2*maxGrants + 1 {
		many[grant{sharePath, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()}] = rw
	}
	if got := changes(nil, many); len(got) != 3 {
		t.Errorf("%d runs for %d grants; want 3", len(got), len(many))
	}
}

func TestParseMounts(t *testing.T) {
	text := `21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:30 / /tank/a\040b rw shared:3 - zfs tank/a rw,xattr,noacl
37 21 0:30 / ` + sharePath + ` rw shared:3 - zfs tank/a rw,xattr,noacl
38 21 8:1 /srv/dir /mnt rw shared:3 - ext4 /dev/vda rw
39 21 0:44 / /mnt rw shared:3 - tmpfs tmpfs rw
`
	got, err := parseMounts(text)
	if err != nil {
		t.Fatal(err)
	}
	for point, want := range map[string]mount{
		"/tank/a b": {30, device{0, 30}, "/", "/tank/a b"},
		sharePath:   {37, device{0, 30}, "/", sharePath},
		"/mnt":      {39, device{0, 44}, "/", "/mnt"},
	} {
		if got[point] != want {
			t.Errorf("%s: %+v; want %+v", point, got[point], want)
		}
	}
	for _, bad := range []string{"x", "a 1 8:1 / /", "1 1 8 / /"} {
		if got, err := parseMounts(bad); err == nil {
			t.Errorf("parseMounts of %q: %v; want an error", bad, got)
		}
	}
	if got, want := (device{0, 0x1e}).inStates(), `superblock: "00:1e:`; got != want {
		t.Errorf("inStates: %s; want %s", got, want)
	}
}

func TestConfig(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   error
	}{
		{"as it is", func(*Config) {}, nil},
		{"root is relative", func(c *Config) { c.Root = "srv" }, cairn.ErrInvalid},
		{"root with a blank", func(c *Config) { c.Root = "/srv *(rw)" }, cairn.ErrInvalid},
		{"root not clean", func(c *Config) { c.Root = "/srv/../etc" }, cairn.ErrInvalid},
		{"a file that exportfs does not read", func(c *Config) { c.ExportsFile = "/etc/exports.d/cairn" }, cairn.ErrInvalid},
		{"no addresses", func(c *Config) { c.ServiceAddresses = nil }, cairn.ErrInvalid},
		{"unknown squash", func(c *Config) { c.Squash = "insecure" }, cairn.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := DefaultConfig()
			config.ExportsFile = filepath.Join(t.TempDir(), "cairn.exports")
			config.ServiceAddresses = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
			config.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
			tt.change(&config)
			if _, err := New(config); !errors.Is(err, tt.want) {
				t.Errorf("New: %v; want %v", err, tt.want)
			}
		})
	}
}

func TestDeepest(t *testing.T) {
	mounts := map[string]mount{"/srv/a": {}, "/srv/a/b": {}, "/srv/a/b/c": {}, "/srv/ab/longer/than/all": {}, "/srv/d": {}}
	for path, want := range map[string]string{"/srv/a": "/srv/a/b/c", "/srv/a/b": "/srv/a/b/c", "/srv/d": "/srv/d"} {
		if got := deepest(mounts, path); got != want {
			t.Errorf("deepest mount at or below %s: %s, want %s", path, got, want)
		}
	}
}
