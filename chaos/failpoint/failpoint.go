// Package failpoint ends the process with SIGKILL at a point of the code that a test has named. It is compiled only into the
// test binary that `make failpoints` builds: in the product a point is a comment, `// failpoint: NAME`, which the program in
// overlay turns into a call of this package.
//
// It knows nothing of what it kills. It talks to the test through files in one directory, because the process may be any server
// of a cluster, or a command that runs for a moment. Its state is global to the process: the calls stand in code that must not
// carry anything for it.
package failpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Variable names the environment variable with the directory; without it nothing happens at any point.
const Variable = "CAIRN_FAILPOINTS"

// Files of the directory.
const (
	// Armed holds the name of one point. Of all the processes the first that reaches it takes the file away and dies.
	Armed = "armed"
	// Killed is the beginning of the name that the file has then; the number of the process follows.
	Killed = "killed-"
	// Reached lists the points that were reached, one a line, each once for every process.
	Reached = "reached"
)

var (
	dir  = os.Getenv(Variable)
	seen sync.Map // names of points
)

// At is a point.
func At(name string) {
	if dir == "" {
		return
	}
	if _, again := seen.LoadOrStore(name, true); !again {
		note(name)
	}
	armed := filepath.Join(dir, Armed)
	if text, err := os.ReadFile(armed); err != nil || string(text) != name {
		return // not this one, or somebody else has just died of it
	}
	if os.Rename(armed, filepath.Join(dir, fmt.Sprint(Killed, os.Getpid()))) != nil {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal is there
}

// In is the point name-value of several.
func In(name string, value any) { At(name + "-" + Spell(fmt.Sprint(value))) }

// Spell writes a value as it stands in the name of a point.
func Spell(value string) string { return strings.ReplaceAll(value, " ", "-") }

func note(name string) {
	file, err := os.OpenFile(filepath.Join(dir, Reached), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err == nil {
		_, err = file.WriteString(name + "\n")
	}
	if err != nil {
		panic(fmt.Sprintf("failpoint %s: %v", name, err)) // a test that does not see what is reached would prove nothing
	}
	_ = file.Close() // a line in the page cache is all that is needed
}
