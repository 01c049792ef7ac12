// Package report shows a chaos run to people: one page without anything outside of it, and a few lines for a terminal. It knows
// facts and verdicts, and nothing of how they came about.
package report

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cairn-storage/cairn/chaos/model"
	"github.com/cairn-storage/cairn/chaos/validate"
)

// Run is what is shown.
type Run struct {
	Title    string // such as the command that repeats it
	Plan     []string
	Cannot   []string
	Notes    []string
	History  model.History
	Final    model.Final
	Verdicts []validate.Verdict
}

//go:embed page.html
var page string

// HTML writes the page.
func HTML(out io.Writer, r Run) error {
	parsed, err := template.New("page").Parse(page)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := parsed.Execute(out, view(r)); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// Text writes the verdicts, a line for each check and each violation.
func Text(out io.Writer, r Run) error {
	var b strings.Builder
	for _, f := range failovers(r.History) {
		fmt.Fprintf(&b, "          %s: %s (%s): no acknowledged write for %s\n", f.Share, f.After, f.How, f.Gap)
	}
	fmt.Fprintf(&b, "records: %s\n", strings.Join(records(r.History.Acks), ", "))
	for _, v := range r.Verdicts {
		verdict := "ok"
		if len(v.Violations) > 0 {
			verdict = fmt.Sprintf("%d VIOLATIONS", len(v.Violations))
		} else if v.Looked == 0 {
			verdict = "nothing to look at"
		}
		fmt.Fprintf(&b, "%-18s %7d facts  %s\n", v.Check, v.Looked, verdict)
		for i, violation := range v.Violations {
			if i == most {
				fmt.Fprintf(&b, "    … and %d more\n", len(v.Violations)-most)
				break
			}
			fmt.Fprintf(&b, "    %s\n", violation)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// most is how many violations of one check a terminal gets.
const most = 10

// failover is how long nobody could write at a change of roles.
type failover struct {
	Share string
	After string // what has ended
	How   string
	Gap   time.Duration
}

// records is how many were acknowledged, by protocol.
func records(acks []model.Ack) []string {
	counts := map[string]int{}
	for _, ack := range acks {
		counts["over "+ack.Protocol]++
	}
	return texts(counts)
}

// ofOldCopy reports whether a write was acknowledged before a change of roles: by its epoch or, where the answer does not say it, by its time.
func ofOldCopy(ack model.Ack, t model.Takeover) bool {
	if ack.Protocol == model.NFS {
		return ack.Return <= t.At
	}
	return ack.Epoch <= t.From
}

func failovers(h model.History) []failover {
	var all []failover
	for _, t := range h.Takeovers {
		f := failover{Share: t.Share, After: "after " + round(t.At).String(), How: "failover, up to " + t.LeftBehind.String() + " left behind"}
		if t.From > 0 {
			f.After = fmt.Sprintf("after epoch %d", t.From)
		}
		if t.Planned {
			f.How = "planned"
		}
		last, first := time.Duration(0), time.Duration(1<<62)
		for _, ack := range h.Acks {
			switch {
			case ack.Share != t.Share:
			case ofOldCopy(ack, t):
				last = max(last, ack.Return)
			default:
				first = min(first, ack.Return)
			}
		}
		if last > 0 && first < 1<<62 {
			f.Gap = max(0, first-last).Round(time.Millisecond)
			all = append(all, f)
		}
	}
	return all
}

// lane is a row of the time line.
type lane struct {
	Name  string
	Y     int
	Spans []span
}

// span is a mark on it. Positions are in units of the picture.
type span struct {
	X, W  float64
	Class string
	Title string
}

type shown struct {
	Run
	Failovers []failover
	Lanes     []lane
	Ticks     []span
	Width     float64
	Height    int
	Bad       int
	Counts    []string
	Records   []string
}

const (
	width      = 1400.0
	laneHeight = 22
)

func view(r Run) shown {
	s := shown{Run: r, Failovers: failovers(r.History), Width: width}
	end := time.Second
	for _, op := range r.History.Operations {
		end = max(end, op.Return)
	}
	for _, f := range r.History.Faults {
		end = max(end, f.To)
	}
	x := func(at time.Duration) float64 { return width * float64(at) / float64(end) }
	lanes := map[string][]span{}
	add := func(name, class, title string, from, to time.Duration) {
		lanes[name] = append(lanes[name], span{x(from), max(1.5, x(to)-x(from)), class, title})
	}
	for _, f := range r.History.Faults {
		add("fault: "+f.Target, "fault", fmt.Sprintf("%s of %s, %s to %s", f.Kind, f.Target, round(f.From), round(f.To)), f.From, f.To)
	}
	for _, t := range r.History.Takeovers {
		add("roles: "+t.Share, "takeover", fmt.Sprintf("epoch %d ends at %s, planned: %t, left behind: %s", t.From, round(t.At), t.Planned, t.LeftBehind), t.At, t.At)
	}
	for _, a := range r.History.Acks {
		add("writes: "+a.Share, fmt.Sprintf("epoch%d", a.Epoch%6), fmt.Sprintf("record %d over %s by %q in epoch %d, %s to %s", a.Record, a.Protocol, a.Node, a.Epoch, round(a.Call), round(a.Return)), a.Call, a.Return)
	}
	counts := map[string]int{}
	for _, op := range r.History.Operations {
		class := "done"
		if op.Outcome == model.Unknown {
			class = "unknown"
		} else if op.Output.Refusal != "" {
			class = "refused"
		}
		counts[string(op.Kind)+" "+class]++
		add("api: "+family(op.Resource), class, fmt.Sprintf("client %d, %s to %s: %s", op.Client, round(op.Call), round(op.Return), op), op.Call, op.Return)
	}
	s.Lanes, s.Counts, s.Records = sorted(lanes), texts(counts), records(r.History.Acks)
	s.Height = (len(s.Lanes) + 1) * laneHeight
	for at := time.Duration(0); at < end; at += max(time.Second, (end / 20).Round(time.Second)) {
		s.Ticks = append(s.Ticks, span{X: x(at), Title: at.String()})
	}
	for _, v := range r.Verdicts {
		s.Bad += len(v.Violations)
	}
	return s
}

// family is the kind of a resource: what is before its name.
func family(resource string) string {
	kind, _, named := strings.Cut(resource, "/")
	if !named && strings.Contains(kind, "-slot-") {
		return "slots"
	}
	return kind
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func sorted(lanes map[string][]span) []lane {
	var all []lane
	for name, spans := range lanes {
		all = append(all, lane{Name: name, Spans: spans})
	}
	order := map[byte]int{'f': 0, 'r': 1, 'w': 2, 'a': 3}
	slices.SortFunc(all, func(a, b lane) int {
		return cmp.Or(cmp.Compare(order[a.Name[0]], order[b.Name[0]]), cmp.Compare(a.Name, b.Name))
	})
	for i := range all {
		all[i].Y = (i + 1) * laneHeight
	}
	return all
}

func texts(counts map[string]int) []string {
	var all []string
	for what, n := range counts {
		all = append(all, fmt.Sprintf("%s: %d", what, n))
	}
	slices.Sort(all)
	return all
}
