package ganesha

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/nfs/record"
)

func testConfig() Config {
	config := DefaultConfig()
	config.StateDir = "/var/lib/cairn/ganesha"
	config.ServiceAddresses = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	return config
}

// The golden file is what a reader of the documentation sees.
func TestRender(t *testing.T) {
	datadriven.RunTest(t, "testdata/render", func(t *testing.T, d *datadriven.TestData) string {
		r := testRecord(t)
		if d.HasArg("squash") {
			var squash cairn.Squash
			d.ScanArgs(t, "squash", (*string)(&squash.Mode), &squash.UID, &squash.GID)
			entry, _ := r.Entry(drivers.ExportID{Replica: "0198c000-0000-7000-8000-0000000000a1"})
			entry.Spec.Squash = squash
			if err := r.Put(entry.Spec); err != nil {
				t.Fatal(err)
			}
		}
		text, err := testConfig().render(r, r.Served(), d.HasArg("tracing"))
		if err != nil {
			return err.Error()
		}
		return string(text)
	})
}

func testRecord(t *testing.T) *record.Record {
	t.Helper()
	r := record.New()
	live := drivers.ExportSpec{
		ID: drivers.ExportID{Replica: "0198c000-0000-7000-8000-0000000000a1"}, Share: "0198c000-0000-7000-8000-0000000000b1",
		Root: "/tank/odd {name} $HOME %include # é", Epoch: 4, Size: 1 << 30,
		Rules: []cairn.AccessRule{
			{ID: "r1", Kind: cairn.AccessIP, Who: "10.0.0.0/30", Level: cairn.AccessRO, State: cairn.RuleActive},
			{ID: "r2", Kind: cairn.AccessIP, Who: "10.0.0.2", Level: cairn.AccessRW, State: cairn.RuleActive},
			{ID: "r3", Kind: cairn.AccessIP, Who: "fd00::/64", Level: cairn.AccessRW, State: cairn.RuleActive},
			{ID: "r4", Kind: cairn.AccessIP, Who: "10.9.9.9", Level: cairn.AccessRW, State: cairn.RuleDenying},
		},
	}
	frozen := live
	frozen.ID.Snapshot, frozen.ReadOnly, frozen.Root, frozen.Rules = "0198c000-0000-7000-8000-0000000000c1", true, "/tank/.zfs/snapshot/s", nil
	for _, spec := range []drivers.ExportSpec{live, frozen} {
		if err := r.Put(spec); err != nil {
			t.Fatal(err)
		}
	}
	r.Fence("0198c000-0000-7000-8000-0000000000a2", 9)
	return r
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   error
	}{
		{"as it is", func(*Config) {}, nil},
		{"root is relative", func(c *Config) { c.Root = "srv" }, cairn.ErrInvalid},
		{"root with a quote", func(c *Config) { c.Root = `/srv"; }` }, cairn.ErrInvalid},
		{"root not clean", func(c *Config) { c.Root = "/srv/../etc" }, cairn.ErrInvalid},
		{"no state directory", func(c *Config) { c.StateDir = "" }, cairn.ErrInvalid},
		{"no addresses", func(c *Config) { c.ServiceAddresses = nil }, cairn.ErrInvalid},
		{"no port", func(c *Config) { c.Port = 0 }, cairn.ErrInvalid},
		{"no grace", func(c *Config) { c.Grace = 0 }, cairn.ErrInvalid},
		{"too much grace", func(c *Config) { c.Grace = time.Hour }, cairn.ErrInvalid},
		{"unknown squash", func(c *Config) { c.Squash = "none; }" }, cairn.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := testConfig()
			tt.change(&config)
			if err := config.validate(); !errors.Is(err, tt.want) {
				t.Errorf("validate: %v; want %v", err, tt.want)
			}
		})
	}
}

func TestLocation(t *testing.T) {
	config := testConfig()
	for port, want := range map[uint16][2]string{
		2049:  {"10.0.0.1:/srv/cairn/x", "[fd00::1]:/srv/cairn/x"},
		20490: {"nfs://10.0.0.1:20490/srv/cairn/x", "nfs://[fd00::1]:20490/srv/cairn/x"},
	} {
		config.Port = port
		for i, addr := range config.ServiceAddresses {
			if got := config.location(addr, "x"); got != want[i] {
				t.Errorf("location at port %d: %s; want %s", port, got, want[i])
			}
		}
	}
}

func TestParseLine(t *testing.T) {
	const begin = "21/11/2026 10:57:49 : epoch 6b01792d : vm : nfs-ganesha-8931[sigmgr] "
	tests := []struct {
		name, text string
		want       line
		severe     bool
	}{
		{"reread", begin + "reread_exports :CONFIG :EVENT :Reread exports complete", line{"reread_exports", "CONFIG", "EVENT", "Reread exports complete"}, false},
		{"two words", begin + "nfs_start :NFS STARTUP :EVENT :             NFS SERVER INITIALIZED", line{"nfs_start", "NFS STARTUP", "EVENT", "             NFS SERVER INITIALIZED"}, false},
		{"severe", begin + "fsal_cfg_commit :CONFIG :CRIT :Could not create export for (/a) to (/b)", line{"fsal_cfg_commit", "CONFIG", "CRIT", "Could not create export for (/a) to (/b)"}, true},
		{"what it does not need", begin + "gsh_dbus_pkginit :DBUS :CRIT :dbus_bus_get failed", line{"gsh_dbus_pkginit", "DBUS", "CRIT", "dbus_bus_get failed"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseLine(tt.text)
			if !ok || got != tt.want || got.severe() != tt.severe {
				t.Errorf("parseLine: %+v, %v, severe %v; want %+v, severe %v", got, ok, got.severe(), tt.want, tt.severe)
			}
		})
	}
	if got, ok := parseLine("Segmentation fault"); ok {
		t.Errorf("parseLine of no log line: %+v", got)
	}
}
