package fsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/cairn-storage/cairn"
)

// bundle applies the commands as one entry of the log, and tells of each what came of it.
func (s *story) bundle(d *datadriven.TestData) string {
	var commands [][]byte
	lines := strings.Split(d.Input, "\n")
	for _, line := range lines {
		meta, c := s.command(line)
		s.told[c.op()] = true
		data, err := Encode(meta, c)
		if err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		commands = append(commands, data)
	}
	before := s.m.View()
	var changes []Change
	cancel := s.m.Subscribe(func(more []Change) { changes = append(changes, more...) })
	result := s.m.Apply(before.Index()+1, Bundle(commands))
	cancel()
	var out strings.Builder
	for i, line := range lines {
		fmt.Fprintf(&out, "%s\n  %s\n", line, answer(result.Bundle[i]))
	}
	return out.String() + renderChanges(before, s.m.View(), changes)
}

// TestBundleFormat freezes the bytes of bundles, and what is refused as one.
func TestBundleFormat(t *testing.T) {
	datadriven.RunTest(t, filepath.Join("testdata", "bundle.txt"), func(t *testing.T, d *datadriven.TestData) string {
		var parts [][]byte
		for line := range strings.SplitSeq(d.Input, "\n") {
			part, err := hex.DecodeString(strings.ReplaceAll(line, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, part)
		}
		if d.Cmd == "bundle" {
			return hex.EncodeToString(Bundle(parts)) + "\n"
		}
		commands, err := decodeEntry(bytes.Join(parts, nil))
		if err != nil {
			return "refused: " + err.Error() + "\n"
		}
		var out strings.Builder
		for _, c := range commands {
			fmt.Fprintf(&out, "%T %s\n", c.Command, c.target())
		}
		return out.String()
	})
	if _, taken := ops[bundleMark]; taken {
		t.Error("a command has the number that marks bundles")
	}
}

// FuzzEntry: whatever the bytes of a log entry are, they are refused or applied, the framing has one form only, and each
// command of a bundle that is refused has left nothing behind.
func FuzzEntry(f *testing.F) {
	one := encoded(f, createShare("s2", 1))
	two := encoded(f, &DeleteShare{ID: "s1"})
	f.Add(one)
	f.Add(Bundle([][]byte{one, two}))
	f.Add(Bundle([][]byte{one, one, two}))
	f.Add(Bundle([][]byte{one, Bundle([][]byte{one, two})}))
	f.Fuzz(func(t *testing.T, entry []byte) {
		commands, err := decodeEntry(entry)
		if err != nil {
			if !errors.Is(err, cairn.ErrCorrupt) && !errors.Is(err, cairn.ErrUpgrade) {
				t.Fatal(err)
			}
			return
		}
		if len(commands) > 1 {
			var parts [][]byte
			for rest := entry[1:]; len(rest) > 0; {
				size := int(rest[0])<<24 | int(rest[1])<<16 | int(rest[2])<<8 | int(rest[3])
				parts, rest = append(parts, rest[4:4+size]), rest[4+size:]
			}
			if !bytes.Equal(Bundle(parts), entry) {
				t.Fatal("another form of the same bundle")
			}
		}
		m := smallMachine(t)
		before := m.View()
		result := m.Apply(before.Index()+1, entry)
		if len(commands) > 1 && len(result.Bundle) != len(commands) {
			t.Fatalf("%d answers for %d commands", len(result.Bundle), len(commands))
		}
		refused := func(r Result) bool { return r.Err != nil }
		if len(commands) > 1 && !slices.ContainsFunc(result.Bundle, func(r Result) bool { return !refused(r) }) && m.View().Digest() != before.Digest() {
			t.Fatal("all were refused, but the state has changed")
		}
		checkState(t, m)
	})
}

func encoded(t testing.TB, c Command) []byte {
	t.Helper()
	data, err := Encode(Meta{At: 1, Actor: "user/alice"}, c)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestBundledHistory: the commands of a bundle do and answer what they would have done one entry after the other.
func TestBundledHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{T: t, a: fleetMachine(t), b: fleetMachine(t)}
		bundled := fleetMachine(t)
		for range rapid.IntRange(3, 12).Draw(t, "bundles") {
			var commands [][]byte
			var want []Result
			for range rapid.IntRange(2, 8).Draw(t, "commands") {
				data, result := h.step()
				commands, want = append(commands, data), append(want, result)
			}
			got := bundled.Apply(bundled.live.index+1, Bundle(commands))
			if err := sameAnswers(got.Bundle, want); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := timeless(t, bundled), timeless(t, h.a); !slices.Equal(got, want) {
			t.Fatalf("rows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		checkState(t, bundled)
	})
}

// sameAnswers compares results but for the index, which the commands of a bundle share.
func sameAnswers(got, want []Result) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d answers, want %d", len(got), len(want))
	}
	for i := range want {
		a, b := got[i], want[i]
		a.Index, b.Index = 0, 0
		if fmt.Sprint(a) != fmt.Sprint(b) {
			return fmt.Errorf("command %d: %v, want %v", i+1, a, b)
		}
	}
	return nil
}

// timeless renders all rows but for the index in events.
func timeless(t rapid.TB, m *Machine) []string {
	var rows []string
	v, codec := m.View(), newRowCodec()
	for _, table := range v.tables() {
		if table.tableName() == TableEvents {
			continue
		}
		for key, data := range table.encoded(codec) {
			rows = append(rows, fmt.Sprintf("%s %s %x", table.tableName(), key, data))
		}
	}
	next := v.FirstEvent()
	for e := range v.Events(0) {
		if e.Seq != next {
			t.Fatalf("event %d, want %d", e.Seq, next)
		}
		next++
		row := *e
		row.Index = 0
		rows = append(rows, fmt.Sprintf("%+v", row))
	}
	return rows
}

// TestBundleAnswersEach has a control: the answers of two commands that trade places are noticed.
func TestBundleAnswersEach(t *testing.T) {
	alone, together := smallMachine(t), smallMachine(t)
	var commands [][]byte
	var want []Result
	for _, c := range []Command{
		createShare("s2", 1), createShare("s3", 1), &DeleteShare{ID: "none"}, createShare("s4", -1), &CreateUser{cairn.User{Name: "bob", Role: cairn.UserAdmin}},
	} {
		data := encoded(t, c)
		commands = append(commands, data)
		want = append(want, alone.Apply(alone.live.index+1, data))
	}
	index := together.live.index + 1
	got := together.Apply(index, Bundle(commands))
	if err := sameAnswers(got.Bundle, want); err != nil {
		t.Error(err)
	}
	for _, r := range append(slices.Clone(got.Bundle), got) {
		if r.Index != index {
			t.Errorf("index %d, want %d", r.Index, index)
		}
	}
	for i := range want {
		for j := range i {
			swapped := slices.Clone(got.Bundle)
			swapped[i], swapped[j] = swapped[j], swapped[i]
			if sameAnswers(swapped, want) == nil {
				t.Errorf("answers %d and %d have traded places, and nobody noticed", i+1, j+1)
			}
		}
	}
}

// TestBundleIsOneState: nobody sees a part of a bundle, and who listens hears of it once.
func TestBundleIsOneState(t *testing.T) {
	m := smallMachine(t)
	before, heard := m.View().Usage("web").Shares, 0
	m.Subscribe(func([]Change) {
		heard++
		if now := m.View().Usage("web").Shares - before; now != int64(2*heard) {
			t.Errorf("after bundle %d there are %d shares more", heard, now)
		}
	})
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if v := m.View(); (v.Usage("web").Shares-before)%2 != 0 {
					t.Errorf("entry %d: half a bundle is visible", v.Index())
					return
				}
			}
		})
	}
	const bundles = 200
	for i := range bundles {
		m.Apply(m.live.index+1, Bundle([][]byte{
			encoded(t, createShare(fmt.Sprintf("a%d", i), 1)), encoded(t, createShare(fmt.Sprintf("b%d", i), 1)),
		}))
	}
	close(done)
	readers.Wait()
	if heard != bundles {
		t.Errorf("heard %d times of %d bundles", heard, bundles)
	}
	checkState(t, m)
}

// TestCheckpointInABundle: what counts is the digest after the whole entry, also if there are two checkpoints in it.
func TestCheckpointInABundle(t *testing.T) {
	m := smallMachine(t)
	check := encoded(t, &Checkpoint{})
	index := m.live.index + 1
	m.Apply(index, Bundle([][]byte{encoded(t, createShare("s2", 1)), check, encoded(t, createShare("s3", 1)), check}))
	at, digest := m.LastCheckpoint()
	if at != index || digest != m.View().Digest() {
		t.Errorf("remembers %016x at %d, want %016x at %d", digest, at, m.View().Digest(), index)
	}
	apply(t, m, &Checkpoint{PrevIndex: at, PrevDigest: digest})
	if at, diverged := m.Divergence(); diverged {
		t.Errorf("a false alarm at entry %d", at)
	}
	m.Apply(m.live.index+1, Bundle([][]byte{encoded(t, createShare("s4", 1)), encoded(t, &Checkpoint{PrevIndex: index, PrevDigest: digest + 1})}))
	if at, diverged := m.Divergence(); !diverged || at != index {
		t.Errorf("diverged %v at %d, want an alarm at %d", diverged, at, index)
	}
}
