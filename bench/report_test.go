package bench

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
)

// row is one thing that was measured.
type row struct {
	probe  bool // a limit
	what   string
	value  string
	limit  string // what it is compared with
	ratio  string
	target string
	met    bool
}

// report collects rows and prints them as a table.
type report struct{ rows []row }

func (r *report) probe(what, value string) {
	r.rows = append(r.rows, row{probe: true, what: what, value: value})
}

// result adds a row. The framework runs a benchmark that is over quickly again: the last one counts.
func (r *report) result(one row) {
	again := slices.IndexFunc(r.rows, func(old row) bool { return !old.probe && old.what == one.what })
	if again < 0 {
		r.rows = append(r.rows, one)
		return
	}
	r.rows[again] = one
}

func (r *report) print(out io.Writer) {
	if len(r.rows) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%s, %d CPUs, one machine, one disk for all three members\n", runtime.Version(), runtime.GOMAXPROCS(0))
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "WHAT\tMEASURED\tLIMIT\tRATIO\tTARGET\tVERDICT")
	for _, row := range r.rows {
		verdict := "met"
		switch {
		case row.probe:
			verdict = "probe"
		case row.target == "":
			verdict = "no target"
		case !row.met:
			verdict = "MISSED"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", row.what, row.value, dash(row.limit), dash(row.ratio), dash(row.target), verdict)
	}
	if err := table.Flush(); err != nil {
		fmt.Fprintln(out, err)
	}
	fmt.Fprintln(out)
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
