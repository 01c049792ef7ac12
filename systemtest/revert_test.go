package systemtest

import (
	"fmt"
	"testing"
)

// TestRevertThenRead: when `share revert` returns the share is served, with the content of the snapshot. A script that reads in
// its next line must not find that nobody answers.
func TestRevertThenRead(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	docs := c.makeShare("docs", "1GiB")
	c.put(docs, "file", []byte("before"))
	const others = 1000 // an exporter has something to count when it opens the share again
	for n := range others {
		c.put(docs, fmt.Sprintf("other-%d", n), nil)
	}
	c.must(nil, "snapshot", "create", "docs", "s")
	for round := range 3 {
		c.put(docs, "file", []byte("damaged"))
		c.put(docs, fmt.Sprintf("new-%d", round), []byte("x"))
		c.must(nil, "share", "revert", "docs", "s", "--yes")
		if got := c.get(docs, "file"); string(got) != "before" {
			t.Fatalf("round %d: the file reads %q after the revert, want what the snapshot holds", round, got)
		}
		tree, err := docs.files.List(t.Context())
		c.check(err)
		if len(tree.Files) != 1+others {
			t.Fatalf("round %d: the share holds %d files after the revert, want %d", round, len(tree.Files), 1+others)
		}
	}
}
