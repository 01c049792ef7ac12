package record_test

import (
	"bytes"
	"testing"

	"github.com/cairn-storage/cairn/drivers/nfs/record"
)

// FuzzParse: what is read of a damaged file is written so that it is read as the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte("# cairn {}\n/export *(ro)\n"))
	f.Add([]byte("#cairn: {\"Fence\":{\"Replica\":\"01a22400-13a8-7245-84f5-0f0803a26cf8\",\"Below\":7}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, _ := record.Parse(text)
		lines := r.Lines()
		again, damage := record.Parse(lines)
		if len(damage) > 0 || !bytes.Equal(again.Lines(), lines) {
			t.Errorf("%s\nis read as\n%s\nwith %v", lines, again.Lines(), damage)
		}
	})
}
