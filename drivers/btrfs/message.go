package btrfs

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// message is a text of the tools, and what it means.
type message struct {
	text *regexp.Regexp
	is   error
}

// messages are the texts of btrfs-progs 6.2 and of cp in the C locale that this package knows, the more telling first.
// None means absence: whether a subvolume is there is asked of the kernel. Whatever else a tool says is an error of its own.
var messages = []message{
	// Streams.
	{regexp.MustCompile(`cannot find parent subvolume|parent subvol is not reachable`), cairn.ErrPrecondition},
	{regexp.MustCompile(`unexpected header`), cairn.ErrInvalid},
	{regexp.MustCompile(`stream (requires|version) .*(newer|not supported)`), cairn.ErrUpgrade},
	// The file system.
	{regexp.MustCompile(`(?i)not a btrfs filesystem`), cairn.ErrUnavailable},
	{regexp.MustCompile(`quotas? not enabled`), cairn.ErrPrecondition},
	{regexp.MustCompile(`No space left on device|Disk quota exceeded`), cairn.ErrNoSpace},
	{regexp.MustCompile(`Read-only file system`), cairn.ErrUnavailable},
	{regexp.MustCompile(`Permission denied|Operation not permitted`), cairn.ErrDenied},
	// What is in the way.
	{regexp.MustCompile(`target path already exists|File exists`), cairn.ErrExists},
	{regexp.MustCompile(`destroy subvolume/snapshot: Directory not empty|Device or resource busy`), cairn.ErrInUse},
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
