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

// What Ganesha never listed it has refused, and nobody has anything of it. What it lists late, since errors about another export ended
// reload before the list came, it has: that is held until Ganesha says that it is freed.
func TestRefusedIsForgotten(t *testing.T) {
	const begin = "28/11/2026 19:10:19 : epoch 6b0b271b : vm : nfs-ganesha-4184[sigmgr] "
	s := &server{
		logger: slog.New(slog.DiscardHandler), wanted: map[uint16]bool{1: true, 2: true},
		held: map[uint16]bool{1: true, 2: true}, taken: map[uint16]bool{},
	}
	reread := func() {
		s.read(begin + "reread_exports :CONFIG :EVENT :Reread exports complete")
		s.forgetRefused()
	}
	reread()
	s.read(begin + "log_an_export :EXPORT :INFO :Export     2 pseudo (/srv/cairn/s) with path (/p/r) and tag ((null)) perms")
	if !s.held[1] || !s.held[2] {
		t.Errorf("held while both are wanted: %v", s.held)
	}
	s.wanted = map[uint16]bool{}
	reread()
	if s.held[1] || !s.held[2] {
		t.Errorf("held when both are withdrawn: %v; want what was listed", s.held)
	}
	s.read(begin + "free_export_resources :EXPORT :INFO :Free resources for export 0x1 id 2 path /p/r")
	if s.held[2] {
		t.Error("held after it was freed")
	}
}
