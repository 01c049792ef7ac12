package btrfs

import (
	"context"
	"errors"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// The texts are those of btrfs-progs 6.2, but for those of cp.
func TestDiagnose(t *testing.T) {
	tests := []struct {
		text string
		want error // nil: an error of its own
	}{
		{"ERROR: Not a Btrfs filesystem: Invalid argument", cairn.ErrUnavailable},
		{"ERROR: not a btrfs filesystem: /srv/pool", cairn.ErrUnavailable},
		{"ERROR: can't list qgroups: quotas not enabled", cairn.ErrPrecondition},
		{"ERROR: unable to limit requested quota group: quota not enabled", cairn.ErrPrecondition},
		{"ERROR: unable to limit requested quota group: Disk quota exceeded", cairn.ErrNoSpace},
		{"ERROR: Could not set subvolume flags: Disk quota exceeded", cairn.ErrNoSpace},
		{"ERROR: cannot create subvolume: No space left on device", cairn.ErrNoSpace},
		{"At subvol s1\nERROR: writing to big failed: No space left on device", cairn.ErrNoSpace},
		{"cp: error writing '/srv/pool/r1/aside/files/big': No space left on device", cairn.ErrNoSpace},
		{"ERROR: cannot create subvolume: Read-only file system", cairn.ErrUnavailable},
		{"ERROR: Could not destroy subvolume/snapshot: Operation not permitted", cairn.ErrDenied},
		{"ERROR: cannot open /srv/pool/r1: Permission denied", cairn.ErrDenied},
		{"ERROR: Could not destroy subvolume/snapshot: Directory not empty", cairn.ErrInUse},
		{"ERROR: Could not destroy subvolume/snapshot: Device or resource busy", cairn.ErrInUse},
		{"ERROR: unable to destroy quota group: Device or resource busy", cairn.ErrInUse},
		{"ERROR: target path already exists: data", cairn.ErrExists},
		{"ERROR: cannot snapshot '/srv/pool/r1/data': File exists", cairn.ErrExists},
		{"At snapshot s2\nERROR: cannot find parent subvolume", cairn.ErrPrecondition},
		{"ERROR: parent subvol is not reachable from inside the root subvol", cairn.ErrPrecondition},
		{"ERROR: unexpected header", cairn.ErrInvalid},
		{"ERROR: stream requires version 3, newer than supported 2", cairn.ErrUpgrade},
		// A stream that is cut off can be sent again, so it is nothing that can never succeed.
		{"At subvol s1\nERROR: short read from stream: expected 53 read 32", nil},
		{"At subvol s1\nERROR: unexpected EOF in stream", nil},
		{"ERROR: empty stream is not considered valid", nil},
		{"ERROR: crc32 mismatch in command", nil},
		// Not of the subvolume, perhaps, and so no absence.
		{"ERROR: Could not statfs: No such file or directory", nil},
		{"ERROR: unable to limit requested quota group: No such file or directory", nil},
		{"ERROR: send ioctl failed with -5: Input/output error", nil},
		{"ERROR: the moon is full", nil},
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
			for _, other := range cairn.Sentinels() {
				if errors.Is(err, other) && !errors.Is(tt.want, other) {
					t.Errorf("diagnose: %v is %v as well", err, other)
				}
			}
		})
	}
}

// What did not end by itself has said nothing, whatever it wrote.
func TestDiagnoseOfWhatWasKilled(t *testing.T) {
	_, err := tool.NewMachine().Run(t.Context(), tool.Cmd{Name: "sh", Args: []string{"-c", "echo 'ERROR: target path already exists: data' >&2; kill -KILL $$"}})
	if err := diagnose(err); err == nil || errors.Is(err, cairn.ErrExists) {
		t.Errorf("diagnose: %v; a killed tool proves nothing", err)
	}
	if err := diagnose(context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("diagnose: %v", err)
	}
}

func TestExtents(t *testing.T) {
	tests := []struct {
		line string
		want int64 // -1: an error
	}{
		{"inode 257 file offset 0 len 3 disk start 0 offset 0 gen 18 flags INLINE f", 3},
		{"inode 258 file offset 131072 len 1048576 disk start 13631488 offset 0 gen 18 flags NONE a name with len 9 in it", 1048576},
		{"transid marker was 41", 0},
		{"the rest of a name with a newline", 0},
		{"", 0},
		{"inode 257 file offset 0 len much disk start 0 offset 0 gen 18 flags INLINE f", -1},
		{"inode 257 file offset 0 len -1 disk start 0 offset 0 gen 18 flags INLINE f", -1},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			e := &extents{}
			if err := e.add(tt.line + "\n"); (err != nil) != (tt.want < 0) || tt.want >= 0 && e.bytes != tt.want {
				t.Errorf("add: %d, %v; want %d", e.bytes, err, tt.want)
			}
		})
	}
}

// Changed may say 0 only of these.
func TestEquals(t *testing.T) {
	a, b, c := uuid{1}, uuid{2}, uuid{3}
	tests := []struct {
		name       string
		data, snap subvolume
		want       bool
	}{
		{"cut from it, nothing written", subvolume{UUID: a, Generation: 7}, subvolume{UUID: b, ParentUUID: a, Created: 7}, true},
		{"cut from it, then written", subvolume{UUID: a, Generation: 8}, subvolume{UUID: b, ParentUUID: a, Created: 7}, false},
		{"made from it, nothing written", subvolume{UUID: a, ParentUUID: b, Created: 9, Generation: 9}, subvolume{UUID: b, Created: 7}, true},
		{"made from it, then written", subvolume{UUID: a, ParentUUID: b, Created: 9, Generation: 10}, subvolume{UUID: b, Created: 7}, false},
		{"received later, older data", subvolume{UUID: a, ParentUUID: c, Created: 5, Generation: 5}, subvolume{UUID: b, Created: 7}, false},
		{"neither has a parent", subvolume{UUID: a, Created: 5, Generation: 5}, subvolume{UUID: b, Created: 5, Generation: 5}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.data.equals(tt.snap); got != tt.want {
				t.Errorf("equals: %t; want %t", got, tt.want)
			}
		})
	}
}
