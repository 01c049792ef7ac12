package nfs

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// TestTools plays what the real tools have answered, failures too.
func TestTools(t *testing.T) {
	text, err := os.ReadFile("testdata/tools.txt")
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := transcript.Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	useTools(t, transcript.NewPlayer(t, recorded, nil), func() {}, func() {})
}

// useTools runs every command of the exporter, and some that fail. In the lab it is recorded. hold keeps the mount busy until
// release.
func useTools(t *testing.T, run tool.Runner, hold, release func()) {
	k := kernel{run: run}
	other := grant{"/srv/cairn/" + string(snapshotID), "10.0.0.0/8"}
	ro, rw := options(string(shareID), cairn.AccessRO, SquashNone.options()), options(string(shareID), cairn.AccessRW, SquashNone.options())
	frozen := options(string(snapshotID), cairn.AccessRO, SquashAll.options())
	for i, want := range []table{
		{},
		{{sharePath, "10.0.0.7"}: rw, {sharePath, "10.1.0.0/16"}: ro, {sharePath, "fd00::/64"}: rw, {sharePath, "fd00:1::7"}: ro},
		{{sharePath, "10.0.0.7"}: ro, {sharePath, "0.0.0.0/0"}: rw, {sharePath, "::/0"}: ro, other: frozen},
		{{sharePath, "10.0.0.7"}: ro, {sharePath, "0.0.0.0/0"}: rw, {sharePath, "::/0"}: ro, other: frozen},
		{other: options(string(snapshotID), cairn.AccessRO, SquashRoot.options())},
		{},
	} {
		if _, err := k.apply(t.Context(), "/srv/cairn", want); err != nil {
			t.Errorf("table %d: %v", i, err)
		}
	}

	// exportfs ends with 0 and has done nothing.
	_, err := k.apply(t.Context(), "/srv/cairn", table{{sharePath, "no-such-host.invalid"}: rw})
	if !errors.Is(err, cairn.ErrUnavailable) || !strings.Contains(err.Error(), "Failed to resolve") {
		t.Errorf("a grant that exportfs does not take: %v; want cairn.ErrUnavailable and what it says", err)
	}

	fails := func(what string, err error) {
		t.Helper()
		var exit *tool.ExitError
		if !errors.As(err, &exit) || isBusy(err) {
			t.Errorf("%s: %v; want an exit that is not taken for busy", what, err)
		}
	}
	_, err = run.Run(t.Context(), tool.Cmd{Name: "exportfs", Args: change{grants: []grant{other}}.args()})
	fails("take away what is not granted", err)
	fails("mount what does not exist", k.bind(t.Context(), "/srv/no-such-root", sharePath))
	if err := k.bind(t.Context(), "/srv/root", sharePath); err != nil {
		t.Error(err)
	}
	umount := tool.Cmd{Name: "umount", Args: []string{"-i", sharePath}}
	hold()
	if _, err := run.Run(t.Context(), umount); !isBusy(err) {
		t.Errorf("unmount what is in use: %v; want busy", err)
	}
	release()
	if _, err := run.Run(t.Context(), umount); err != nil {
		t.Error(err)
	}
	_, err = run.Run(t.Context(), umount)
	fails("unmount what is not mounted", err)
}
