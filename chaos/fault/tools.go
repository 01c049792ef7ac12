package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// standIn is a program in the place of a tool. Beside it lies what is wrong with the tool, if anything is. If that is a pipe, the read of it
// hangs until it is taken away, and finds nothing then. The tool never outlives what runs it: Cairn has that killed with itself.
const standIn = `#!/bin/sh
[ -e "$0.fault" ] || exec %[1]s "$@"
fault=
read -r fault after <"$0.fault"
case $fault in
fails) echo "the tool has failed on purpose" >&2; exit 1 ;;
dies) exec timeout -s KILL "$after" setpriv --pdeathsig KILL %[1]s "$@" ;;
done) setpriv --pdeathsig KILL %[1]s "$@"; kill -s KILL $$ ;;
esac
exec %[1]s "$@"
`

// LayTools gives servers that serve NFS, before their first start, storage tools that hang, fail and die on demand: those of their pools, of
// their gate, and of their service addresses. It returns the tools' names; none where something is not installed that this takes.
func LayTools(servers []*local.Server) ([]string, error) {
	for _, needed := range []string{"timeout", "setpriv"} {
		if _, err := tool.Find(needed); errors.Is(err, cairn.ErrNotSupported) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	names := []string{"btrfs", "nft", "ip"}
	for _, name := range names {
		real, err := tool.Find(name)
		if err != nil {
			return nil, err
		}
		for _, s := range servers {
			if err := layTool(filepath.Join(s.ToolDir(), name), real); err != nil {
				return nil, fmt.Errorf("tools of %s: %w", s.Name, err)
			}
		}
	}
	return names, nil
}

func layTool(path, real string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	quoted := "'" + strings.ReplaceAll(real, "'", `'\''`) + "'"
	return os.WriteFile(path, fmt.Appendf(nil, standIn, quoted), 0o755)
}

// ailment is what is wrong with the tool that stands at path.
func ailment(path string) string { return path + ".fault" }

// ails has something be wrong with one of a server's tools. One time of four the server is killed and started besides, so that it has
// such a tool when it takes over what it has left.
func ails(what func(path string, random *rand.Rand) error) func(context.Context, *World, *local.Server, *rand.Rand) (Heal, error) {
	return func(_ context.Context, w *World, target *local.Server, random *rand.Rand) (Heal, error) {
		name, starts := w.Tools[random.IntN(len(w.Tools))], random.IntN(4) == 0
		w.Log("%s: the tool is %s; started anew meanwhile: %t", target.Name, name, starts)
		path := ailment(filepath.Join(target.ToolDir(), name))
		heal := func(ctx context.Context) error {
			if err := cure(path); err != nil {
				return err
			}
			if err := revive(target); err != nil || !starts {
				return err
			}
			return w.Cluster.AwaitUp(ctx, target) // it may be about to end because of the tool
		}
		err := what(path, random)
		if err == nil && starts {
			err = errors.Join(target.Kill(), target.Start())
		}
		return heal, err
	}
}

func toolHangs(path string, _ *rand.Rand) error { return syscall.Mkfifo(path, 0o600) }

func toolFails(path string, _ *rand.Rand) error { return os.WriteFile(path, []byte("fails\n"), 0o600) }

// toolDies: somewhere on its way, or when it has done everything and nobody knows.
func toolDies(path string, random *rand.Rand) error {
	how := "done"
	if random.IntN(2) == 0 {
		how = fmt.Sprintf("dies 0.%03d", 1+random.IntN(30))
	}
	return os.WriteFile(path, []byte(how+"\n"), 0o600)
}

// cure takes away what is wrong with a tool. What hangs goes on when the pipe has a writer; what comes later finds no pipe.
func cure(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("tool: %w", err)
	}
	return errors.Join(os.Remove(path), file.Close())
}
