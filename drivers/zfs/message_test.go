package zfs

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// The texts are those of OpenZFS 2.1.11, but for those that are marked with the version that differs.
func TestDiagnose(t *testing.T) {
	tests := []struct {
		text string
		want error // nil: an error of its own
	}{
		{"cannot open 'tank/r1': dataset does not exist", errGone},
		{"cannot create 'tank/nope/x': parent does not exist", errGone},
		{"could not find any snapshots to destroy; check snapshot names.", errGone},
		{"bookmark 'tank/r1#nope' does not exist.", errGone},
		{"cat: /proc/spl/kstat/zfs/tank/state: No such file or directory", errNotImported},
		{"cannot open 'tank': no such pool", cairn.ErrUnavailable},
		{"cannot open 'tank': pool is unavailable", cairn.ErrUnavailable},
		{"cannot set property for 'tank/r1': pool I/O is currently suspended", cairn.ErrUnavailable},
		{"The ZFS modules are not loaded.\nTry running '/sbin/modprobe zfs' as root to load them.", cairn.ErrUnavailable},
		{"The ZFS modules cannot be auto-loaded.\nTry running 'modprobe zfs' as root to manually load them.", cairn.ErrUnavailable}, // 2.2
		{"cannot create 'tank/denied': permission denied", cairn.ErrDenied},
		{"Permission denied the ZFS utilities must be run as root.", cairn.ErrDenied},
		{"cannot create 'tank/r1': dataset already exists", cairn.ErrExists},
		{"cannot create snapshot 'tank/r1@s1': dataset already exists", cairn.ErrExists},
		{"cannot destroy 'tank/r1': filesystem has children\nuse '-r' to destroy the following datasets:\ntank/r1@s1", cairn.ErrInUse},
		{"cannot destroy 'tank/r1@s1': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\ntank/r2", cairn.ErrInUse},
		{"cannot destroy snapshot tank/r1@s1: dataset is busy", cairn.ErrInUse},
		{"cannot unmount '/tank/r1': pool or dataset is busy", cairn.ErrInUse},
		{"cannot create bookmark 'tank/r1#s1': bookmark exists", errThere},
		{"cannot mount 'tank/r1': filesystem already mounted", errThere},
		{"cannot hold snapshot 'tank/r1@s1': tag already exists on this dataset", errThere},
		{"cannot release hold from snapshot 'tank/r1@s1': no such tag on this dataset", errNotThere},
		{"cannot set property for 'tank/r1': size is less than current used or reserved space", cairn.ErrDataLoss},
		{"cannot set property for 'tank/r1': size is greater than available space", cairn.ErrNoSpace},
		{"cannot create 'tank/r9': out of space", cairn.ErrNoSpace},
		{"cannot receive new filesystem stream: out of space", cairn.ErrNoSpace},
		{"cannot receive new filesystem stream: destination tank/r2 space quota exceeded.", cairn.ErrNoSpace},
		{"cannot set property for 'tank/r1': invalid property 'bogus'", cairn.ErrInvalid},
		{"cannot create 'tank/r9': 'compression' must be one of 'on | off | lzjb'", cairn.ErrInvalid},
		{"cannot create 'tank/r9': name is too long", cairn.ErrInvalid},
		{"cannot rollback to 'tank/r1@s1': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following snapshots and bookmarks:\ntank/r1@s2", cairn.ErrPrecondition},
		{"cannot receive incremental stream: destination tank/r2 has been modified\nsince most recent snapshot", cairn.ErrPrecondition},
		{"cannot receive incremental stream: most recent snapshot of tank/r2 does not\nmatch incremental source", cairn.ErrPrecondition},
		{"cannot receive new filesystem stream: destination 'tank/r2' exists\nmust specify -F to overwrite it", cairn.ErrExists},
		{"cannot receive: invalid stream (bad magic number)", cairn.ErrInvalid},
		{"cannot resume send: resume token is corrupt (invalid format)", cairn.ErrInvalid},
		{"cannot mount 'tank/enc': encryption key not loaded", cairn.ErrUnavailable},
		{"Key load error: Incorrect key provided for 'tank/enc'.", cairn.ErrUnavailable},
		{"cannot receive new filesystem stream: checksum mismatch or incomplete stream.\nPartially received snapshot is saved.", nil},
		{"cannot receive new filesystem stream: kernel modules must be upgraded to receive this stream.", nil},
		{"internal error: Input/output error", nil},
		{"cannot open 'tank/r1': the moon is full", nil},
		{"", nil},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			_, err := tool.NewMachine().Run(t.Context(), tool.Cmd{Name: "sh", Args: []string{"-c", `printf '%s\n' "$1" >&2; exit 1`, "sh", tt.text}})
			err = diagnose(err)
			var exit *tool.ExitError
			if !errors.As(err, &exit) {
				t.Errorf("diagnose: %v; has lost what the tool said", err)
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("diagnose: %v; want %v", err, tt.want)
			}
			for _, other := range append(cairn.Sentinels(), errGone, errThere, errNotThere) {
				if errors.Is(err, other) && !errors.Is(tt.want, other) {
					t.Errorf("diagnose: %v is %v as well", err, other)
				}
			}
		})
	}
}

// What did not end by itself has said nothing, whatever it wrote.
func TestDiagnoseOfWhatWasKilled(t *testing.T) {
	_, err := tool.NewMachine().Run(t.Context(), tool.Cmd{Name: "sh", Args: []string{"-c", "echo \"cannot open 'tank/r1': dataset does not exist\" >&2; kill -KILL $$"}})
	if err := diagnose(err); err == nil || errors.Is(err, errGone) {
		t.Errorf("diagnose: %v; a killed tool proves nothing", err)
	}
	if err := diagnose(context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("diagnose: %v", err)
	}
}

func TestParseRows(t *testing.T) {
	line := func(mountpoint string) string {
		fields := make([]string, len(columns))
		for i := range fields {
			fields[i] = "-"
		}
		fields[0], fields[4], fields[len(fields)-1] = "tank/r 1", "1073741824", mountpoint
		return strings.Join(fields, "\t") + "\n"
	}
	want := row{"name": "tank/r 1", "refquota": "1073741824", "mountpoint": "/tank/r\t1"}
	rows, err := parseRows(line("/tank/r\t1") + line("-"))
	if err != nil || len(rows) != 2 || !reflect.DeepEqual(rows[0], want) {
		t.Errorf("parseRows: %v, %v; want %v first", rows, err, want)
	}
	if n := rows[0].number("refquota"); n != 1<<30 {
		t.Errorf("refquota: %d", n)
	}
	for _, bad := range []string{"tank/r1\n", "\n", line("/a") + "cut off", "NAME  USED\n"} {
		if rows, err := parseRows(bad); err == nil {
			t.Errorf("parseRows(%q): %v; want an error", bad, rows)
		}
	}
}
