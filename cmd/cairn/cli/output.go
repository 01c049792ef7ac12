package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"gopkg.in/yaml.v3"
)

// Column is one column of a table, or one line of a detail view.
type Column[T any] struct {
	Header string
	// Wide columns are shown by -o wide and in detail views only.
	Wide bool
	// Min is the least width, so that the lines of a table that grows stand below each other.
	Min int
	// Cell renders one item. Several values are separated by line breaks.
	Cell func(format, T) string
}

// view says how a kind of message is shown. It is data; one function renders every table.
type view[T proto.Message] struct {
	// ref names the resource as other commands take it, such as "share/docs".
	ref     func(T) string
	columns []Column[T]
}

// result is what a command prints, in whatever form is asked for.
type result struct {
	// refs are the lines of -o name.
	refs []string
	// messages are what JSON and YAML show: an array if many, else the first alone.
	messages []proto.Message
	many     bool
	// text writes the table.
	text func(*bytes.Buffer, printer)
	// none is said on stderr when a list is empty.
	none string
}

// list is a table of items; none says on stderr that there are none.
func (v view[T]) list(items []T, none string) result {
	res := result{many: true, none: none}
	for _, item := range items {
		res.refs = append(res.refs, v.ref(item))
		res.messages = append(res.messages, item)
	}
	res.text = func(out *bytes.Buffer, p printer) { v.table(out, p, items) }
	return res
}

// row is a table of one item: what a command that changed it prints.
func (v view[T]) row(item T) result {
	return result{
		refs: []string{v.ref(item)}, messages: []proto.Message{item},
		text: func(out *bytes.Buffer, p printer) { v.table(out, p, []T{item}) },
	}
}

// detail is everything about one item.
func (v view[T]) detail(item T) result {
	return result{
		refs: []string{v.ref(item)}, messages: []proto.Message{item},
		text: func(out *bytes.Buffer, p printer) { v.lines(out, p, item) },
	}
}

// sentence is one line for people with an answer for scripts.
func sentence(ref, line string, message proto.Message) result {
	return result{
		refs: []string{ref}, messages: []proto.Message{message},
		text: func(out *bytes.Buffer, _ printer) { fmt.Fprintln(out, line) },
	}
}

// printer writes results.
type printer struct {
	format
	style   string // table, wide, json, yaml or name
	headers bool
	// terminal says that somebody looks at stdout.
	terminal bool
}

// print writes the result in one piece.
func (p printer) print(stdout, stderr io.Writer, res result) error {
	var out bytes.Buffer
	switch p.style {
	case "name":
		for _, ref := range res.refs {
			fmt.Fprintln(&out, ref)
		}
	case "json", "yaml":
		encoded, err := encode(res)
		if err == nil && p.style == "yaml" {
			encoded, err = toYAML(encoded)
		}
		if err != nil {
			return fmt.Errorf("output: %w", err)
		}
		out.Write(encoded)
	default:
		res.text(&out, p)
	}
	if _, err := stdout.Write(out.Bytes()); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	if res.many && len(res.messages) == 0 && p.style != "json" && p.style != "yaml" {
		fmt.Fprintln(stderr, res.none)
	}
	return nil
}

// table writes items below each other. A header without a line below it is only for eyes.
func (v view[T]) table(out *bytes.Buffer, p printer, items []T) {
	var rows [][]string
	columns := v.shown(p.style == "wide")
	if p.headers && (len(items) > 0 || p.terminal) {
		header := make([]string, len(columns))
		for i, column := range columns {
			header[i] = column.Header
		}
		rows = append(rows, header)
	}
	for _, item := range items {
		row := make([]string, len(columns))
		for i, column := range columns {
			row[i] = strings.Join(cellLines(column.Cell(p.format, item)), ",")
		}
		rows = append(rows, row)
	}
	widths := make([]int, len(columns))
	for i, column := range columns {
		widths[i] = column.Min
	}
	align(out, rows, widths)
}

// lines writes one item as a column of names and values.
func (v view[T]) lines(out *bytes.Buffer, p printer, item T) {
	var rows [][]string
	for _, column := range v.columns {
		name := column.Header
		for _, line := range cellLines(column.Cell(p.format, item)) {
			if p.headers {
				rows = append(rows, []string{name, line})
			} else {
				rows = append(rows, []string{line})
			}
			name = ""
		}
	}
	align(out, rows, make([]int, 2))
}

func (v view[T]) shown(wide bool) []Column[T] {
	var columns []Column[T]
	for _, column := range v.columns {
		if wide || !column.Wide {
			columns = append(columns, column)
		}
	}
	return columns
}

// cellLines keeps a value from breaking its table.
func cellLines(cell string) []string {
	if cell == "" {
		return []string{"-"}
	}
	lines := strings.Split(cell, "\n")
	for i := range lines {
		lines[i] = oneLine(lines[i])
	}
	return lines
}

// align pads all columns but the last to the same width, at least widths, which it changes.
func align(out *bytes.Buffer, rows [][]string, widths []int) {
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			out.WriteString(cell)
			if i < len(row)-1 {
				out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		out.WriteByte('\n')
	}
}

// encode renders the proto JSON of the result, indented.
func encode(res result) ([]byte, error) {
	var raw bytes.Buffer
	if res.many {
		raw.WriteByte('[')
	}
	for i, message := range res.messages {
		if i > 0 {
			raw.WriteByte(',')
		}
		encoded, err := compact(message)
		if err != nil {
			return nil, err
		}
		raw.Write(encoded)
	}
	if res.many {
		raw.WriteByte(']')
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw.Bytes(), "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// compact is the proto JSON of a message on one line. All fields are there, also zero ones, so that scripts need not know
// which are left out; protojson's spaces, which differ from build to build on purpose, are taken out.
func compact(message proto.Message) ([]byte, error) {
	encoded, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Compact(&out, encoded); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// toYAML renders JSON as YAML with the same names in the same order.
func toYAML(encoded []byte) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(encoded, &document); err != nil {
		return nil, err
	}
	plain(&document)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&document); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}

// plain takes JSON's braces and quotes off; the encoder quotes where it must.
func plain(node *yaml.Node) {
	if len(node.Content) > 0 || node.Kind == yaml.ScalarNode {
		node.Style = 0
	}
	for _, child := range node.Content {
		plain(child)
	}
}
