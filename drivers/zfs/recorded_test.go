package zfs

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// notRecorded are texts that the tools of the lab cannot be made to say: its kernel has the module, and its pools have their disks
// when the machine starts.
var notRecorded = []string{
	`ZFS modules (are not loaded|cannot be auto-loaded)|Unable to open /dev/zfs`,
	`one or more devices is currently unavailable`,
}

// Every message that this package knows was said by the real tool, in the transcripts, to whom it was held.
func TestMessagesAreRecorded(t *testing.T) {
	var said []string
	for _, pattern := range []string{"testdata/*.txt", "../sim/testdata/z*.txt"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no transcripts at %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tr, err := transcript.Parse(string(text))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for _, x := range tr.Exchanges {
				if x.Code != 0 {
					said = append(said, x.Stderr)
				}
			}
		}
	}
	for _, m := range messages {
		recorded := slices.ContainsFunc(said, m.text.MatchString)
		if recorded == slices.Contains(notRecorded, m.text.String()) {
			t.Errorf("%s: in a transcript: %t", m.text, recorded)
		}
	}
}
