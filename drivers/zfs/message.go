package zfs

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// What callers within this package look for. Each wraps what it is to the outside if nobody reads more into it.
var (
	// errGone: the tool says that there is no such dataset. It says the same of every dataset of a zpool that is not
	// imported, so it is not cairn.ErrNotFound until the parent has answered as well.
	errGone = errors.New("dataset does not exist")
	// errNotImported: the kernel knows no zpool of that name.
	errNotImported = fmt.Errorf("no such pool, or ZFS is not loaded: %w", cairn.ErrUnavailable)
	// errForeign: something that is not ours has the name.
	errForeign = fmt.Errorf("foreign object: %w", cairn.ErrExists)
	// errTooSmall: a limit below what is in use.
	errTooSmall = fmt.Errorf("size is less than what is used: %w", cairn.ErrDataLoss)
	// errMoved: what belongs to a replica was renamed while it was looked at.
	errMoved = errors.New("changed while it was looked at")
	// errThere and errNotThere: a hold, bookmark or mount is, or is not, there already.
	errThere    = errors.New("is there already")
	errNotThere = errors.New("is not there")
)

// message is a text of the tools, and what it means.
type message struct {
	text *regexp.Regexp
	is   error
}

// messages are the texts of OpenZFS 2.1 and 2.2 in the C locale that this package knows, the more telling first. Whatever
// else a tool says is an error of its own: it is neither absence nor success.
var messages = []message{
	// The pool.
	{regexp.MustCompile(`^cat: /proc/spl/kstat/zfs/[^/]*/state: No such file or directory`), errNotImported},
	{regexp.MustCompile(`pool I/O is currently suspended`), cairn.ErrUnavailable},
	{regexp.MustCompile(`(?m)^cannot open '[^']*': (no such pool|pool is unavailable)`), cairn.ErrUnavailable},
	{regexp.MustCompile(`one or more devices is currently unavailable`), cairn.ErrUnavailable},
	{regexp.MustCompile(`ZFS modules (are not loaded|cannot be auto-loaded)|Unable to open /dev/zfs`), cairn.ErrUnavailable},
	{regexp.MustCompile(`(?i)permission denied|must be run as root`), cairn.ErrDenied},
	// Streams.
	{regexp.MustCompile(`contains partially-complete state from "zfs receive -s"`), cairn.ErrPrecondition},
	{regexp.MustCompile(`has been modified\s+since most recent snapshot`), cairn.ErrPrecondition},
	{regexp.MustCompile(`most recent snapshot of \S+ does not\s+match incremental source`), cairn.ErrPrecondition},
	{regexp.MustCompile(`space quota exceeded`), cairn.ErrNoSpace},
	{regexp.MustCompile(`cannot resume send: .*(no longer exists|no longer the same snapshot)`), cairn.ErrNotFound},
	{regexp.MustCompile(`cannot resume send: .*(resume token is corrupt|unsupported)`), cairn.ErrInvalid},
	{regexp.MustCompile(`destination '[^']*' exists\s+must specify -F`), cairn.ErrExists},
	{regexp.MustCompile(`destination '[^']*' does not exist`), cairn.ErrPrecondition},
	{regexp.MustCompile(`invalid (backup )?stream|stream is not a valid`), cairn.ErrInvalid},
	// What depends on what.
	{regexp.MustCompile(`(file system|filesystem|volume|snapshot) has (dependent clones|children)`), cairn.ErrInUse},
	{regexp.MustCompile(`(dataset|pool|target|device) is busy|pool or dataset is busy`), cairn.ErrInUse},
	{regexp.MustCompile(`more recent snapshots or bookmarks exist`), cairn.ErrPrecondition},
	// Holds, bookmarks and mounts.
	{regexp.MustCompile(`tag already exists on this dataset|bookmark exists|filesystem already mounted`), errThere},
	{regexp.MustCompile(`no such tag on this dataset`), errNotThere},
	// Space.
	{regexp.MustCompile(`size is less than current used or reserved space`), errTooSmall},
	{regexp.MustCompile(`(?i)out of space|size is greater than available space|no space left on device|quota exceeded`), cairn.ErrNoSpace},
	// Names, values and keys.
	{regexp.MustCompile(`dataset already exists`), cairn.ErrExists},
	{regexp.MustCompile(`name is too long|invalid character|bad property list|invalid property|must be one of|bad numeric value`), cairn.ErrInvalid},
	{regexp.MustCompile(`(?i)key load error|incorrect key|encryption key not loaded|key must be loaded`), cairn.ErrUnavailable},
	{regexp.MustCompile(`(?m)^cannot (open|create) '[^']*': (dataset|no such pool|parent) does not exist|could not find any snapshots to destroy|^bookmark '[^']*' does not exist`), errGone},
}

// diagnose gives the failure of a tool the meaning that its message has.
func diagnose(err error) error {
	var exit *tool.ExitError
	if !errors.As(err, &exit) || exit.Code < 0 {
		return err
	}
	for _, m := range messages {
		if m.text.Match(exit.Stderr) {
			return fmt.Errorf("%w: %w", err, m.is)
		}
	}
	return err
}
