package fsm

import (
	"fmt"
	"io"
	"testing"

	"github.com/cairn-storage/cairn"
)

const benchShares = 100_000

// fullMachine holds many shares, as a large cluster does.
func fullMachine(b *testing.B) *Machine {
	b.Helper()
	m := smallMachine(b)
	for i := range benchShares {
		applyNext(b, m, encodedShare(b, i))
	}
	return m
}

// encodedShare is the log entry that creates share i, with everything that a real one has.
func encodedShare(b *testing.B, i int) []byte {
	b.Helper()
	c := createShare(fmt.Sprintf("0190f3c2-7e7a-7b3e-9a54-%012x", i), 1<<20)
	c.Share.Metadata = map[string]string{"owner": "alice"}
	data, err := Encode(Meta{Token: fmt.Sprintf("3f0e4a52-94f5-4f55-8d4c-%012x", i), At: int64(i), Actor: "user/alice"}, c)
	if err != nil {
		b.Fatal(err)
	}
	return data
}

func applyNext(b *testing.B, m *Machine, data []byte) {
	if r := m.Apply(m.live.index+1, data); r.Err != nil {
		b.Fatal(r.Err)
	}
}

func BenchmarkApplyCreateShare(b *testing.B) {
	m := fullMachine(b)
	entries := make([][]byte, b.N)
	for i := range entries {
		entries[i] = encodedShare(b, benchShares+i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, data := range entries {
		applyNext(b, m, data)
	}
}

// BenchmarkViewAfterApply is the worst case for copy-on-write: a view between any two entries.
func BenchmarkViewAfterApply(b *testing.B) {
	m := fullMachine(b)
	entries := make([][]byte, b.N)
	for i := range entries {
		entries[i] = encodedShare(b, benchShares+i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, data := range entries {
		applyNext(b, m, data)
		m.View()
	}
}

func BenchmarkReport(b *testing.B) {
	m := fullMachine(b)
	entries := make([][]byte, 2)
	for i, code := range []cairn.FaultCode{"", cairn.FaultExport} {
		data, err := Encode(Meta{At: 1}, &ReportReplica{
			Node: "n1", Replica: m.View().Share("s1").Active, Generation: m.View().Replica("r-s1").Generation, Epoch: 1,
			Have: cairn.ReplicaHave{Presence: cairn.Present, Size: 1 << 30, Fault: cairn.Fault{Code: code, Message: "x"}},
		})
		if err != nil {
			b.Fatal(err)
		}
		entries[i] = data
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		applyNext(b, m, entries[i%2])
	}
}

func BenchmarkSnapshot(b *testing.B) {
	s := fullMachine(b).Snapshot()
	n, err := s.WriteTo(io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(n)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := s.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRestore(b *testing.B) {
	full := fullMachine(b)
	var size int64
	for range b.N {
		r, w := io.Pipe()
		go func() {
			n, err := full.Snapshot().WriteTo(w)
			size = n
			w.CloseWithError(err)
		}()
		if err := New().Restore(r); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(size)
}
