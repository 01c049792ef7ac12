package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/cairn-storage/cairn"
)

// quota is what the file system counts and limits for each subvolume: the group 0/<ID of the subvolume>.
type quota struct {
	// groups is the directory where the kernel shows them, such as /sys/fs/btrfs/<file system>/qgroups.
	groups string
	// why says why there are none; "" if there are.
	why string
}

// on reports whether sizes are enforced here.
func (q quota) on() bool { return q.why == "" }

// notes are for the operator.
func (q quota) notes() []string {
	if !q.on() {
		return []string{
			"sizes are enforced by the exporter and not by quotas: " + q.why,
			"without quotas a sealed replica takes writes to files that were open before",
		}
	}
	var notes []string
	if text, err := os.ReadFile(filepath.Join(q.groups, "inconsistent")); err == nil && strings.TrimSpace(string(text)) == "1" {
		notes = append(notes, "quotas are being counted, or are inconsistent: sizes may be exceeded until it is done; see btrfs quota rescan -s")
	}
	if text, err := os.ReadFile(filepath.Join(q.groups, "mode")); err == nil && strings.TrimSpace(string(text)) == "squota" {
		notes = append(notes, "simple quotas: blocks that clones and snapshots share count only for the replica that wrote them")
	}
	return notes
}

// quotaOf finds the quotas of the file system that a file is on.
func quotaOf(f *os.File) (quota, error) {
	var info [1024]byte // struct btrfs_ioctl_fs_info_args: two numbers, then the ID of the file system
	if err := ioctl(f, fsInfo, unsafe.Pointer(&info)); err != nil {
		return quota{}, fmt.Errorf("file system: %w", err)
	}
	id := info[16:32]
	return quota{groups: fmt.Sprintf("/sys/fs/btrfs/%x-%x-%x-%x-%x/qgroups", id[:4], id[4:6], id[6:8], id[8:10], id[10:])}, nil
}

// enableQuota turns quotas on for the file system, unless they are on. What keeps it from that is no error: then the exporter
// has to enforce sizes.
func (o *op) enableQuota() error {
	var err error
	if o.quota, err = quotaOf(o.dir); err != nil {
		return err
	}
	if on, err := there(o.quota.groups); err != nil || on {
		return err
	}
	err = o.tool("enable quotas", "btrfs", "quota", "enable", o.path)
	if errors.Is(err, context.Canceled) || errors.Is(err, cairn.ErrUnknownOutcome) || errors.Is(err, cairn.ErrTimeout) {
		return err
	}
	on, statErr := there(o.quota.groups)
	switch {
	case statErr != nil:
		return statErr
	case !on && err != nil:
		o.quota.why = err.Error()
	case !on:
		o.quota.why = "the kernel shows none in " + o.quota.groups
	default:
		return err
	}
	return nil
}

const (
	unlimited = -1
	// sealedLimit is less than what an empty subvolume uses, so nothing can be written, in place of old blocks either.
	sealedLimit = 1
)

// limit bounds what the subvolume at path refers to, in bytes, where quotas are on. Usage beyond it stays and cannot grow.
//
// The tool is pointed at the pool, since a call on a subvolume that is at its limit is itself refused.
func (o *op) limit(path string, size int64) error {
	if !o.quota.on() {
		return nil
	}
	s, err := subvolumeAt(path)
	if err != nil {
		return err
	}
	value := "none"
	if size != unlimited {
		value = strconv.FormatInt(size, 10)
	}
	return o.tool("set limit", "btrfs", "qgroup", "limit", value, "0/"+strconv.FormatUint(s.ID, 10), o.path)
}

// group reads one number of a subvolume's group.
func (q quota) group(s subvolume, name string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(q.groups, "0_"+strconv.FormatUint(s.ID, 10), name))
	if err != nil {
		return 0, fmt.Errorf("quota group: %w", err)
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// used is what the size of the subvolume at path limits: what the file system has counted, the blocks of directories and of
// uploads in progress included. Without quotas it is what its files appear to have, as the exporter counts.
func (o *op) used(path string) (int64, error) {
	if !o.quota.on() {
		return o.survey(filepath.Join(path, "files"))
	}
	if err := o.flush(); err != nil {
		return 0, err
	}
	s, err := subvolumeAt(path)
	if err != nil {
		return 0, err
	}
	return o.quota.group(s, "referenced")
}

// checkFits is cairn.ErrDataLoss if used is more than size.
func checkFits(used, size int64) error {
	if used > size {
		return fmt.Errorf("%s (%d bytes) are used, more than %s: %w", cairn.FormatSize(used), used, cairn.FormatSize(size), cairn.ErrDataLoss)
	}
	return nil
}

// dropped are the groups of subvolumes that were deleted last, oldest first.
type dropped struct {
	mu  sync.Mutex
	ids []uint64
}

// add returns the oldest when there are more than the kernel is given time for.
func (d *dropped) add(id uint64) (oldest uint64, ok bool) {
	const patience = 16
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ids = append(d.ids, id)
	if len(d.ids) <= patience {
		return 0, false
	}
	oldest, d.ids = d.ids[0], d.ids[1:]
	return oldest, true
}

// dropGroup sees to it that the group of a subvolume that was deleted goes as well. Linux 6.11 and newer do it themselves, after
// a while; before that groups without a subvolume pile up, and every commit has to count them.
func (o *op) dropGroup(id uint64) error {
	oldest, ok := o.dropped.add(id)
	if !ok || !o.quota.on() {
		return nil
	}
	name := strconv.FormatUint(oldest, 10)
	left, err := there(filepath.Join(o.quota.groups, "0_"+name))
	if err != nil || !left {
		return err
	}
	err = o.tool("drop quota group", "btrfs", "qgroup", "destroy", "0/"+name, o.path)
	if errors.Is(err, cairn.ErrInUse) {
		return nil // the kernel says that it will do it
	}
	return err
}

// settleLimits gives every replica the limit of its mark: a crash, or somebody who turned quotas off and on again, may have
// left another one.
func (o *op) settleLimits() error {
	if !o.quota.on() {
		return nil
	}
	ids, err := o.candidates()
	if err != nil {
		return err
	}
	for _, id := range ids {
		one := &op{Pool: o.Pool, ctx: o.ctx, id: id}
		if err := one.settleLimit(); err != nil {
			return fmt.Errorf("limit of replica %s: %w", id, err)
		}
	}
	return nil
}

func (o *op) settleLimit() error {
	f, err := o.look()
	if err != nil || !f.ready() {
		return nil // whoever asks for it is told why
	}
	want := f.Size
	if f.data.readOnly() {
		want = sealedLimit
	}
	now, err := o.quota.group(f.data, "max_referenced")
	if err == nil && now == want {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return o.limit(o.in("data"), want)
}
