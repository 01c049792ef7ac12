package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
)

const goodConfig = `data_dir = "/var/lib/cairn"
listen = "10.0.0.1:7450"
[[pool]]
name = "data"
driver = "dir"
path = "/srv/cairn"
`

func TestParseConfig(t *testing.T) {
	cfg, err := ParseConfig([]byte(goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.advertised(cfg.Listen); got != "10.0.0.1:7450" {
		t.Errorf("advertised address = %q", got)
	}
	if cfg.Pools[0].OverSubscriptionPercent != 100 {
		t.Errorf("over-subscription = %d, want 100 by default", cfg.Pools[0].OverSubscriptionPercent)
	}
	if cfg.HTTP != DefaultHTTP {
		t.Errorf("http = %q, want the default", cfg.HTTP)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	cases := map[string]struct{ config, want string }{
		"unknown key":           {"data_dir = \"/d\"\nlisen = \"x\"\n", `line 2: unknown key "lisen"`},
		"unknown key in pool":   {goodConfig + "sise = 1\n", `line 7: unknown key "pool.sise"`},
		"not TOML":              {"data_dir = \"/d\"\nname = \n", "line 2"},
		"wrong type":            {"data_dir = 7\n", "line 1"},
		"no data directory":     {"name = \"n1\"\n", "data_dir: is missing"},
		"relative directory":    {"data_dir = \"d\"\n", "must be an absolute path"},
		"address without port":  {"data_dir = \"/d\"\nlisten = \"10.0.0.1\"\n", "want host:port"},
		"nowhere to be reached": {"data_dir = \"/d\"\nlisten = \"0.0.0.0:7450\"\n", "advertise: is missing"},
		"name with slash":       {"data_dir = \"/d\"\nname = \"a/b\"\n", "character '/' is not allowed"},
		"two pools, one name":   {goodConfig + goodConfig[strings.Index(goodConfig, "[["):], "described twice"},
		"unknown driver":        {strings.Replace(goodConfig, `"dir"`, `"tape"`, 1), `driver "tape" is not known; this version has: btrfs, dir, zfs`},
		"relative pool":         {strings.Replace(goodConfig, "/srv/", "srv/", 1), "must be an absolute path"},
		"reserved too much":     {goodConfig + "reserved_percent = 100\n", "must be 0 to 99"},
		"ratio below one":       {goodConfig + "over_subscription_percent = 50\n", "must be 100 to 10000"},
		"size with KB":          {goodConfig + "max_size = \"10GB\"\n", "max_size"},
		"zfs without dataset":   {strings.Replace(goodConfig, `"dir"`, `"zfs"`, 1), "pool.zfs.dataset is missing"},
		"zfs with path":         {strings.Replace(goodConfig, `"dir"`, `"zfs"`, 1) + "[pool.zfs]\ndataset = \"tank\"\n", "not for driver zfs"},
		"dir with zfs":          {goodConfig + "[pool.zfs]\ndataset = \"tank\"\n", "has a section pool.zfs"},
		"nfs server":            {goodConfig + "[nfs]\nserver = \"samba\"\n", `want kernel or ganesha`},
		"nfs address":           {goodConfig + "[nfs]\nserver = \"kernel\"\naddresses = [\"here\"]\n", "want an IP address"},
		"kernel with a port":    {goodConfig + "[nfs]\nserver = \"kernel\"\nport = 2050\n", "are for server"},
		"gateway without unit":  {goodConfig + "[gateway]\nwait = \"5\"\n", "gateway.wait"},
		"gateway for ever":      {goodConfig + "[gateway]\nwait = \"1h\"\n", "at most 5m"},
		"rate without a number": {goodConfig + "[replication]\nrate = \"fast\"\n", "replication.rate"},
		"rate in MB":            {goodConfig + "[replication]\nrate = \"100MB\"\n", "want bytes per second, such as 100MiB"},
		"rate of nothing":       {goodConfig + "[replication]\nrate = \"0\"\n", "replication.rate"},
		"rate of a modem":       {goodConfig + "[replication]\nrate = \"7KiB\"\n", "less than 64KiB"},
		"compression":           {goodConfig + "[replication]\ncompression = \"gzip\"\n", "want none or zstd"},
		"kernel without sizes":  {goodConfig + "[nfs]\nserver = \"kernel\"\nignore_size = true\n", "are for server"},
		"log level":             {"data_dir = \"/d\"\n[log]\nlevel = \"loud\"\n", "log.level"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig([]byte(c.config))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error = %v, want one with %q", err, c.want)
			}
			if !errors.Is(err, cairn.ErrInvalid) {
				t.Errorf("error does not wrap ErrInvalid: %v", err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error has more than one line: %q", err)
			}
		})
	}
}

func TestReplicationConfig(t *testing.T) {
	cfg, err := ParseConfig([]byte(goodConfig + "[replication]\nrate = \"1.5MiB\"\ncompression = \"zstd\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if rate, err := cfg.Replication.rate(); err != nil || rate != 3<<19 || cfg.Replication.Compression != "zstd" {
		t.Errorf("rate %d, %v, compression %q", rate, err, cfg.Replication.Compression)
	}
	for _, text := range []string{"", "[replication]\ncompression = \"none\"\n"} {
		cfg, err := ParseConfig([]byte(goodConfig + text))
		if rate, _ := cfg.Replication.rate(); err != nil || rate != 0 {
			t.Errorf("%q: rate %d, %v", text, rate, err)
		}
	}
}
