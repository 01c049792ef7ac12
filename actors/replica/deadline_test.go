package replica

import (
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

func TestDeadlines(t *testing.T) {
	for _, tc := range []struct {
		name string
		op   Op
		size int64
		want time.Duration
	}{
		{"moves no data", OpCreate, 1 << 40, time.Minute},
		{"small copy", OpSnapshot, 1 << 20, time.Minute},
		{"copy of 10 GiB", OpClone, 10 << 30, time.Minute + 1280*time.Second},
		{"the largest share does not overflow", OpRevert, cairn.MaxSize, time.Minute + 24*time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &pass{
				Actor: New(Config{}), have: &Have{Object: &drivers.Object{Size: tc.size}},
				want: &Want{Replica: &cairn.Replica{}},
			}
			if got := p.deadline(tc.op); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}
