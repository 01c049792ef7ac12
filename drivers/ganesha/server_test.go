package ganesha

import (
	"log/slog"
	"slices"
	"testing"
)

// What Ganesha says of an export that it refuses, here of a subvolume of btrfs: the words that are kept have the cause in them.
func TestWordsOfARefusal(t *testing.T) {
	const begin = "28/11/2026 19:10:19 : epoch 6b0b271b : vm : nfs-ganesha-4184[sigmgr] "
	const conf = "config_errs_to_log :CONFIG :CRIT :Config File (/d/ganesha.conf:20): "
	s := &server{logger: slog.New(slog.DiscardHandler), wanted: map[uint16]bool{1: true}}
	for _, text := range []string{
		"vfs_create_export :FSAL :CRIT :resolve_posix_filesystem(/p/r/data/files) returned No such file or directory (2)",
		"mdcache_fsal_create_export :FSAL :MAJ :Failed to call create_export on underlying FSAL VFS",
		"fsal_cfg_commit :CONFIG :CRIT :Could not create export for (/srv/cairn/s) to (/p/r/data/files)",
		conf + "1 validation errors in block FSAL", conf + "Errors processing block (FSAL)", conf + "1 validation errors in block EXPORT",
	} {
		s.read(begin + text)
	}
	want := []string{
		"resolve_posix_filesystem(/p/r/data/files) returned No such file or directory (2)", "Failed to call create_export on underlying FSAL VFS",
		"Could not create export for (/srv/cairn/s) to (/p/r/data/files)",
	}
	if !slices.Equal(s.words, want) || !s.errors {
		t.Errorf("words %q, errors %t; want %q", s.words, s.errors, want)
	}
	s.words = nil
	s.read(begin + conf + "Unexpected token")
	if len(s.words) != 1 {
		t.Errorf("words %q of what nothing else is said of", s.words)
	}
}

// What Ganesha lists it has, and may have requests of, whatever reload made of errors about another export before the list came.
func TestListedIsHeld(t *testing.T) {
	const begin = "28/11/2026 19:10:19 : epoch 6b0b271b : vm : nfs-ganesha-4184[sigmgr] "
	s := &server{logger: slog.New(slog.DiscardHandler), wanted: map[uint16]bool{1: true, 2: true}, held: map[uint16]bool{1: true}}
	s.read(begin + "reread_exports :CONFIG :EVENT :Reread exports complete")
	s.read(begin + "log_an_export :EXPORT :INFO :Export     2 pseudo (/srv/cairn/s) with path (/p/r) and tag ((null)) perms")
	if !s.listing[2] || !s.held[2] {
		t.Errorf("listed %v, held %v", s.listing, s.held)
	}
}
