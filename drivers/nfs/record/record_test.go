package record_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/nfs/record"
)

const (
	replicaA cairn.ReplicaID  = "0198c000-0000-7000-8000-0000000000a1"
	replicaB cairn.ReplicaID  = "0198c000-0000-7000-8000-0000000000a2"
	share    cairn.ShareID    = "0198c000-0000-7000-8000-0000000000b1"
	snapshot cairn.SnapshotID = "0198c000-0000-7000-8000-0000000000c1"
)

func spec(replica cairn.ReplicaID, epoch uint64) drivers.ExportSpec {
	return drivers.ExportSpec{
		ID: drivers.ExportID{Replica: replica}, Share: share, Root: "/tank/\n# cairn: {}\" \\" + string(replica), Epoch: epoch,
		Rules: []cairn.AccessRule{{ID: "r\n1", Kind: cairn.AccessIP, Who: "10.0.0.0/8", Level: cairn.AccessRW}},
	}
}

func put(t *testing.T, r *record.Record, s drivers.ExportSpec) {
	t.Helper()
	if err := r.Put(s); err != nil {
		t.Fatal(err)
	}
}

func TestLinesAndParse(t *testing.T) {
	r := record.New()
	put(t, r, spec(replicaB, 7))
	put(t, r, spec(replicaA, 4))
	frozen := spec(replicaA, 4)
	frozen.ID.Snapshot, frozen.ReadOnly, frozen.Rules = snapshot, true, nil
	put(t, r, frozen)
	r.Withdraw(drivers.ExportID{Replica: replicaB})
	r.Fence(replicaA, 3)

	text := string(r.Lines())
	if lines := strings.Count(text, "\n"); lines != 4 {
		t.Errorf("%d lines for 3 exports and a fence: what is in a path or a rule has broken out:\n%s", lines, text)
	}
	again, damage := record.Parse([]byte("/a line of the server *(rw)\n" + text + "# a comment\n"))
	if len(damage) > 0 || !reflect.DeepEqual(again, r) {
		t.Errorf("Parse of Lines: %+v, %v; want %+v", again, damage, r)
	}
}

func TestParseLeavesOutDamage(t *testing.T) {
	r := record.New()
	put(t, r, spec(replicaA, 4))
	good := string(r.Lines())
	for name, line := range map[string]string{
		"cut off":         good[:len(good)/2],
		"not JSON":        "# cairn: rw for everybody",
		"nothing":         "# cairn: {}",
		"unknown field":   `# cairn: {"Fence":{"Replica":"` + string(replicaB) + `","Below":1,"Above":2}}`,
		"path for an ID":  strings.ReplaceAll(good, string(share), "../../../etc/0198c000-0000-7000-8000"),
		"upper case":      strings.ReplaceAll(good, string(share), strings.ToUpper(string(share))),
		"rule of a user":  strings.ReplaceAll(good, `"Kind":"ip"`, `"Kind":"user"`),
		"rule of options": strings.ReplaceAll(good, "10.0.0.0/8", "*(rw)"),
		"fence of a path": `# cairn: {"Fence":{"Replica":"/","Below":1}}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, damage := record.Parse([]byte(strings.TrimSuffix(line, "\n") + "\n"))
			if len(damage) != 1 || len(got.Entries()) != 0 || len(got.Lines()) != 0 {
				t.Errorf("Parse of %q: %d entries, damage %q; want none and one", line, len(got.Entries()), damage)
			}
		})
	}
}

func TestEpochs(t *testing.T) {
	r := record.New()
	put(t, r, spec(replicaA, 4))
	if err := r.Put(spec(replicaA, 3)); !errors.Is(err, cairn.ErrStale) {
		t.Errorf("Put of an epoch below the recorded one: %v; want cairn.ErrStale", err)
	}
	if r.Fence(replicaA, 4) {
		t.Error("a fence below 4 withdrew epoch 4")
	}
	if !r.Fence(replicaA, 6) || len(r.Served()) != 0 {
		t.Errorf("a fence below 6 left epoch 4 served: %v", r.Served())
	}
	r.Fence(replicaA, 5)
	r.Remove(drivers.ExportID{Replica: replicaA})
	r, damage := record.Parse(r.Lines()) // a restart
	if err := r.Put(spec(replicaA, 5)); !errors.Is(err, cairn.ErrStale) || len(damage) > 0 {
		t.Errorf("Put below the fence after a restart: %v, %v; want cairn.ErrStale", err, damage)
	}
	put(t, r, spec(replicaA, 6))
	put(t, r, spec(replicaB, 1))
}

func TestServed(t *testing.T) {
	writable, readOnly, newer := spec(replicaA, 4), spec(replicaB, 9), spec(replicaB, 9)
	readOnly.ReadOnly = true
	tests := []struct {
		name  string
		specs []drivers.ExportSpec
		want  cairn.ReplicaID
	}{
		{"the writable one", []drivers.ExportSpec{readOnly, writable}, replicaA},
		{"then the higher epoch", []drivers.ExportSpec{writable, newer}, replicaB},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := record.New()
			for _, s := range tt.specs {
				put(t, r, s)
			}
			if got := r.Served()[string(share)].Spec.ID.Replica; got != tt.want {
				t.Errorf("served is %s; want %s", got, tt.want)
			}
		})
	}
}

func TestNumbers(t *testing.T) {
	r := record.New()
	used := make(map[uint16]bool)
	for i := range 1200 {
		s := spec(cairn.ReplicaID(fmt.Sprintf("0198c000-0000-7000-8000-%012x", i)), 1)
		s.Share = cairn.ShareID(s.ID.Replica)
		put(t, r, s)
		e, _ := r.Entry(s.ID)
		if e.Number == 0 || used[e.Number] {
			t.Fatalf("export %d has the number %d: 0, or of another", i, e.Number)
		}
		used[e.Number] = true
	}
	s := spec(replicaA, 1)
	put(t, r, s)
	before, _ := r.Entry(s.ID)
	s.Rules = nil
	put(t, r, s)
	if after, _ := r.Entry(s.ID); after.Number != before.Number {
		t.Error("a change of rules changed the number, and so clients' handles")
	}
	s.Root = "/elsewhere"
	put(t, r, s)
	if after, _ := r.Entry(s.ID); after.Number == before.Number {
		t.Error("another root has the number of the one before: Ganesha would go on serving that")
	}
}

func TestClients(t *testing.T) {
	tests := []struct {
		name     string
		rules    string // level, who
		readOnly bool
		want     string
	}{
		{"none", "", false, ""},
		{"host and network", "rw 10.0.0.7, ro 10.1.0.0/16", false, "rw 10.0.0.7, ro 10.1.0.0/16"},
		{"IPv6", "ro fd00::/64, rw fd00:1::7", false, "ro fd00::/64, rw fd00:1::7"},
		{"everybody", "rw 0.0.0.0/0, ro ::/0", false, "rw 0.0.0.0/0, ro ::/0"},
		{"the same twice", "ro 10.0.0.0/8, rw 10.0.0.0/8", false, "rw 10.0.0.0/8"},
		{"a reader within writers", "rw 10.0.0.0/8, ro 10.0.0.7", false, "rw 10.0.0.0/8"},
		{"a writer within readers", "ro 10.0.0.0/30, rw 10.0.0.2", false, "ro 10.0.0.0/31, rw 10.0.0.2, ro 10.0.0.3"},
		{"a read-only export", "rw 10.0.0.0/8, ro 10.0.0.7", true, "ro 10.0.0.0/8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := record.Clients(parseRules(tt.rules), tt.readOnly)
			var text []string
			for _, c := range got {
				text = append(text, fmt.Sprintf("%s %v", c.Level, c))
			}
			if err != nil || strings.Join(text, ", ") != tt.want {
				t.Errorf("Clients: %s, %v; want %s", strings.Join(text, ", "), err, tt.want)
			}
		})
	}
}

func parseRules(text string) (rules []cairn.AccessRule) {
	for i, one := range strings.Split(text, ", ") {
		if level, who, ok := strings.Cut(one, " "); ok {
			rules = append(rules, cairn.AccessRule{
				ID: cairn.RuleID(fmt.Sprint(i)), Kind: cairn.AccessIP, Who: who, Level: cairn.AccessLevel(level), State: cairn.RuleActive,
			})
		}
	}
	return rules
}

// Whatever the rules are, a client gets the highest level of those that match it, and networks never overlap.
func TestClientsAreTheHighestLevel(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range 500 {
		var rules []cairn.AccessRule
		for i := range random.IntN(8) {
			prefix := netip.PrefixFrom(randomAddr(random), 24+random.IntN(9)).Masked()
			level := []cairn.AccessLevel{cairn.AccessRO, cairn.AccessRW}[random.IntN(2)]
			state := []cairn.RuleState{cairn.RuleActive, cairn.RuleDenying}[random.IntN(2)]
			rules = append(rules, cairn.AccessRule{ID: cairn.RuleID(fmt.Sprint(i)), Kind: cairn.AccessIP, Who: prefix.String(), Level: level, State: state})
		}
		clients, err := record.Clients(rules, false)
		if err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
		for host := range 256 {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(host)})
			var want, got []cairn.AccessLevel
			for _, rule := range rules {
				if netip.MustParsePrefix(rule.Who).Contains(addr) && !rule.State.Denied() {
					want = []cairn.AccessLevel{max(rule.Level, append(want, "")[0])} // "rw" is after "ro"
				}
			}
			for _, c := range clients {
				if c.Prefix.Contains(addr) {
					got = append(got, c.Level)
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d, round %d: %v has %v; want %v of %v", seed, round, addr, got, want, rules)
			}
		}
	}
}

func randomAddr(random *rand.Rand) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(256))})
}

func TestClientsRefuses(t *testing.T) {
	tests := []struct {
		name string
		rule cairn.AccessRule
		want error
	}{
		{"a user", cairn.AccessRule{Kind: cairn.AccessUser, Who: "alice", Level: cairn.AccessRW}, cairn.ErrNotSupported},
		{"a certificate", cairn.AccessRule{Kind: cairn.AccessCert, Who: "alice", Level: cairn.AccessRW}, cairn.ErrNotSupported},
		{"an unknown kind", cairn.AccessRule{Kind: "dns", Who: "host", Level: cairn.AccessRW}, cairn.ErrInvalid},
		{"an unknown level", cairn.AccessRule{Kind: cairn.AccessIP, Who: "10.0.0.1", Level: "admin"}, cairn.ErrInvalid},
		{"a host name", cairn.AccessRule{Kind: cairn.AccessIP, Who: "*", Level: cairn.AccessRW}, cairn.ErrInvalid},
		{"options", cairn.AccessRule{Kind: cairn.AccessIP, Who: "10.0.0.1(rw) *", Level: cairn.AccessRO}, cairn.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := record.Clients([]cairn.AccessRule{tt.rule}, false); !errors.Is(err, tt.want) || got != nil {
				t.Errorf("Clients: %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cairn.exports")
	if text, err := record.ReadFile(path); err != nil || text != nil {
		t.Errorf("ReadFile of what is absent: %q, %v", text, err)
	}
	for _, text := range []string{"one\n", "two\n"} {
		if err := record.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := record.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("ReadFile: %q, %v; want %q", got, err, text)
		}
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(path), "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := record.WriteFile(filepath.Join(filepath.Dir(path), "taken"), nil, 0o600); err == nil {
		t.Error("WriteFile over a directory succeeded")
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 2 {
		t.Errorf("WriteFile left %v, %v; want the file and the directory", entries, err)
	}
}

func TestName(t *testing.T) {
	for replica, want := range map[cairn.ReplicaID]string{
		replicaA:                             string(share),
		"drill-ab12-" + replicaA:             string(share),
		"":                                   "",
		"a1":                                 "",
		"../" + replicaA:                     "",
		"drill\n" + replicaA:                 "",
		replicaA + "-drill":                  "",
		cairn.ReplicaID(replicaA[1:]) + "\n": "",
	} {
		if got := record.Name(spec(replica, 1)); got != want {
			t.Errorf("replica %q: name %q, want %q", replica, got, want)
		}
	}
}
