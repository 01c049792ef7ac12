package transcript

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn/drivers/tool"
)

// Names keeps out of a transcript what differs from run to run. A Recorder, a Player and Verify each need their own. It is
// not safe for concurrent use.
type Names struct {
	// Fixed maps what stands in the transcript, such as /dir, to what stands for it in this run, such as a temporary
	// directory. It is replaced wherever it occurs.
	Fixed map[string]string
	// Cells finds in the stdout or stderr of a command what else differs. nil: nothing.
	Cells func(argv []string, output string) []Cell
	// Order puts the lines of an output in the order in which they are to stand, where the tool leaves it open. It comes before
	// all else. nil: as they are.
	Order func(argv []string, output string) string

	learned map[string]map[string]string // by form: value of this run to what stands in the transcript
}

// Cell is a piece of an output that differs from run to run, in output[Start:End].
type Cell struct {
	Start, End int
	// Form is what stands in the transcript. A %d in it becomes the number of the value among the different values of that
	// form, in order of their first appearance: so what is equal stays equal, and what is different stays different.
	Form string
}

// output is what stands in the transcript for the output of a command.
func (n *Names) output(argv []string, s string) string {
	if n.Order != nil {
		s = n.Order(argv, s)
	}
	if n.Cells != nil {
		var b strings.Builder
		at := 0
		for _, cell := range n.Cells(argv, s) {
			b.WriteString(s[at:cell.Start] + n.name(cell.Form, s[cell.Start:cell.End]))
			at = cell.End
		}
		s = b.String() + s[at:]
	}
	return n.fixed(s)
}

func (n *Names) name(form, value string) string {
	if !strings.Contains(form, "%d") {
		return form
	}
	if n.learned[form] == nil {
		if n.learned == nil {
			n.learned = make(map[string]map[string]string)
		}
		n.learned[form] = make(map[string]string)
	}
	known := n.learned[form]
	if known[value] == "" {
		known[value] = fmt.Sprintf(form, len(known)+1)
	}
	return known[value]
}

// recorded is what stands in the transcript for an argument of this run.
func (n *Names) recorded(arg string) string {
	for _, values := range n.learned {
		if name := values[arg]; name != "" {
			return name
		}
	}
	return n.fixed(arg)
}

// actual is the inverse of recorded.
func (n *Names) actual(arg string) string {
	for _, values := range n.learned {
		for value, name := range values {
			if name == arg {
				return value
			}
		}
	}
	return n.placed(arg)
}

// placed puts what is fixed in this run in the place of its name.
func (n *Names) placed(s string) string {
	return n.replace(s, func(placeholder, value string) (string, string) { return placeholder, value })
}

func (n *Names) fixed(s string) string {
	return n.replace(s, func(placeholder, value string) (string, string) { return value, placeholder })
}

// replace replaces pairs, the longest first: one may be part of another.
func (n *Names) replace(s string, pair func(placeholder, value string) (old, new string)) string {
	var pairs [][2]string
	for placeholder, value := range n.Fixed {
		old, new := pair(placeholder, value)
		pairs = append(pairs, [2]string{old, new})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int {
		return cmp.Or(cmp.Compare(len(b[0]), len(a[0])), strings.Compare(a[0], b[0]))
	})
	for _, p := range pairs {
		s = strings.ReplaceAll(s, p[0], p[1])
	}
	return s
}

// question is what stands in the transcript for a command, without secrets.
func (n *Names) question(c tool.Cmd) Exchange {
	x := Exchange{Argv: []string{c.Name}, Stdin: hide(c, n.fixed(string(c.Stdin)))}
	for _, arg := range c.Args {
		x.Argv = append(x.Argv, hide(c, n.recorded(arg)))
	}
	return x
}

// hide takes a command's secrets out of a text, the longest first.
func hide(c tool.Cmd, s string) string {
	for _, secret := range slices.SortedFunc(slices.Values(c.Redact), func(a, b string) int { return cmp.Compare(len(b), len(a)) }) {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return s
}

// command is the inverse of question for this run.
func (n *Names) command(x Exchange) tool.Cmd {
	c := tool.Cmd{Name: x.Argv[0], Stdin: []byte(n.placed(x.Stdin))}
	for _, arg := range x.Argv[1:] {
		c.Args = append(c.Args, n.actual(arg))
	}
	return c
}
