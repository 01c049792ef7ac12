package sim

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// Cells finds in the output of zfs and zpool what differs from run to run: guids, transaction groups, times and resume
// tokens, and sizes that depend on how a pool lays out its blocks. Sizes are rounded to MiB. It is for transcript.Names.
func Cells(argv []string, output string) []transcript.Cell {
	if len(argv) < 2 || argv[0] != "zfs" && argv[0] != "zpool" {
		return nil
	}
	var cells []transcript.Cell
	for _, at := range token.FindAllStringIndex(output, -1) {
		cells = append(cells, transcript.Cell{Start: at[0], End: at[1], Form: "1-token-%d"})
	}
	for _, at := range resumed.FindAllStringSubmatchIndex(output, -1) {
		cells = append(cells, transcript.Cell{Start: at[2], End: at[3], Form: "0x1"})
	}
	for _, at := range sourceGUID.FindAllStringSubmatchIndex(output, -1) {
		cells = append(cells, transcript.Cell{Start: at[2], End: at[3], Form: "GUID"})
	}
	columns := columnsOf(argv)
	start := 0
	for line := range strings.Lines(output) {
		cells = append(cells, lineCells(columns, start, strings.TrimSuffix(line, "\n"))...)
		start += len(line)
	}
	slices.SortFunc(cells, func(a, b transcript.Cell) int { return cmp.Compare(a.Start, b.Start) })
	return cells
}

var (
	token      = regexp.MustCompile(`\b1-[0-9a-f]{6,}-[0-9a-f]+-[0-9a-f]{32,}`)
	resumed    = regexp.MustCompile(`\t(?:fromguid|object|offset|bytes|toguid) = (0x[0-9a-f]+)\n`)
	sourceGUID = regexp.MustCompile(`incremental source (0x[0-9a-f]+) no longer`)
)

// columnsOf says which property each field of a line holds; "value" is of the property that the line names.
func columnsOf(argv []string) []string {
	fields := map[string]string{
		"zfs get": "name,property,value,source", "zpool get": "name,property,value,source",
		"zfs list": "name,used,available,referenced,mountpoint", "zfs holds": "name,tag,creation", "zfs send": "kind,name,estimate",
	}[argv[0]+" "+argv[1]]
	at := slices.IndexFunc(argv, func(arg string) bool { return arg == "-o" || arg == "-Hpo" || arg == "-Ho" })
	if at >= 0 && at+1 < len(argv) && (argv[1] == "list" || argv[1] == "get") {
		fields = argv[at+1]
	}
	columns := strings.Split(fields, ",")
	if argv[1] == "get" && !slices.Contains(columns, "property") {
		// Every line has the one property that was asked for, or nobody could tell them apart.
		for i, column := range columns {
			if column == "value" {
				columns[i] = asked(argv, at)
			}
		}
	}
	if argv[1] == "send" && slices.ContainsFunc(argv, func(arg string) bool { return strings.HasPrefix(arg, "-") && strings.Contains(arg, "i") }) {
		columns = []string{"kind", "base", "name", "estimate"}
	}
	return columns
}

// asked is the first argument of a get.
func asked(argv []string, columns int) string {
	for i, arg := range argv[2:] {
		if !strings.HasPrefix(arg, "-") && i+2 != columns+1 && !valued(argv[i+1]) {
			return arg
		}
	}
	return ""
}

func valued(option string) bool { return option == "-t" || option == "-d" || option == "-s" }

func lineCells(columns []string, start int, line string) []transcript.Cell {
	fields := strings.Split(line, "\t")
	if fields[0] == "size" && len(fields) == 2 { // of a send
		columns = []string{"kind", "estimate"}
	}
	if len(columns) < len(fields) {
		return nil
	}
	var cells []transcript.Cell
	for i, field := range fields {
		column := columns[i]
		if column == "value" {
			column = fields[slices.Index(columns, "property")]
		}
		if form := formOf(column, field); form != "" {
			cells = append(cells, transcript.Cell{Start: start, End: start + len(field), Form: form})
		}
		start += len(field) + 1
	}
	return cells
}

// formOf is what stands for a value of a property; "" for what does not differ.
func formOf(name, value string) string {
	n, err := strconv.ParseUint(value, 10, 64)
	switch {
	case name == "creation" && value != "-":
		return "1700000000"
	case err != nil:
		return ""
	case name == "guid":
		return "9000000000000000%d"
	case name == "createtxg" || name == "objsetid":
		return "10%d"
	case name == "estimate" || name == "free" || name == "size" || name == "allocated" || rounded(name):
		return strconv.FormatUint((n+1<<19)>>20<<20, 10)
	}
	return ""
}

// rounded reports whether a property counts blocks.
func rounded(name string) bool {
	return properties[name].counts == blocks || strings.HasPrefix(name, "written@")
}

// Order sorts the lists of zfs and exportfs whose order is that of a hash in the kernel: holds, the table of exports, and what a
// refusal lists. It is for transcript.Names.
func Order(argv []string, output string) string {
	if len(argv) < 2 {
		return output
	}
	all := slices.Collect(strings.Lines(output))
	switch {
	case argv[0] == "exportfs" && argv[1] == "-s", argv[0] == "zfs" && argv[1] == "holds":
		slices.Sort(all)
	case argv[0] == "zfs":
		for i, line := range all {
			if !listing.MatchString(line) {
				continue
			}
			list := all[i+1:]
			if end := slices.IndexFunc(list, func(line string) bool { return strings.Contains(line, "'") }); end >= 0 {
				list = list[:end] // the next refusal
			}
			slices.Sort(list)
		}
	}
	return strings.Join(all, "")
}

var listing = regexp.MustCompile(`^use '-[rR]' to .* the following .*:\n$`)
