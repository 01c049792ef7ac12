// Package transcript keeps what storage tools were asked and what they answered, as text that people read and git compares.
//
// A Recorder writes a transcript while real tools run, a Player answers from one, Verify holds another Runner such as a
// simulator to one, and Diff shows what a new version of a tool says differently. The package knows the form of commands and
// nothing of what any tool does.
//
// A transcript is lines, each with a mark:
//
//	# zfs 2.1.11-1              a comment; those before the first blank line are the header
//	$ zfs list -Hp 'tank/a b'   a command, quoted as for a shell where needed; secrets are ***
//	< text                      a line of its stdin
//	| text                      a line of its stdout
//	! text                      a line of its stderr
//	? 1                         its exit code, left out when 0
//	\                           the line of text before this one does not end with a newline
//
// Streams, such as that of zfs send, are binary and differ in every run, so they are named and not kept:
//
//	|= stream 1                 stdout was a stream, the first of the transcript
//	<= stream 1                 stdin was that stream
//	<= stream 1 to 50%          … and ended halfway
//	<= stream 1 damaged at 50%  … with one byte changed
package transcript

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Transcript is a conversation with tools, in order.
type Transcript struct {
	Header    []string // comment lines without their mark: which tool, which version
	Exchanges []Exchange
}

// Exchange is one command and its answer.
type Exchange struct {
	Comments []string // lines before it, without their mark
	Argv     []string
	Stdin    string
	Input    Input // instead of Stdin
	Stdout   string
	Output   int // instead of Stdout: the number of the stream that was written; 0: none
	Stderr   string
	Code     int
	Line     int // where it stands in the text that was parsed
}

// Input is the stream that a command was fed.
type Input struct {
	Stream int // the Output of an earlier exchange; 0: none
	// Percent says where it was cut off or, if Damaged, where one byte was changed. It is 100 for the whole stream.
	Percent int
	Damaged bool
}

// String renders the transcript. Parse is its inverse for everything but Line.
func (t *Transcript) String() string {
	var b strings.Builder
	comments(&b, t.Header)
	for i, x := range t.Exchanges {
		if b.Len() > 0 && (len(x.Comments) > 0 || i == 0) {
			b.WriteByte('\n')
		}
		comments(&b, x.Comments)
		b.WriteString(x.String())
	}
	return b.String()
}

// String renders the exchange as in a transcript, without comments.
func (x Exchange) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "$ %s\n", join(x.Argv))
	text(&b, '<', x.Stdin)
	switch in := x.Input; {
	case in.Stream == 0:
	case in.Damaged:
		fmt.Fprintf(&b, "<= stream %d damaged at %d%%\n", in.Stream, in.Percent)
	case in.Percent < 100:
		fmt.Fprintf(&b, "<= stream %d to %d%%\n", in.Stream, in.Percent)
	default:
		fmt.Fprintf(&b, "<= stream %d\n", in.Stream)
	}
	text(&b, '|', x.Stdout)
	if x.Output != 0 {
		fmt.Fprintf(&b, "|= stream %d\n", x.Output)
	}
	text(&b, '!', x.Stderr)
	if x.Code != 0 {
		fmt.Fprintf(&b, "? %d\n", x.Code)
	}
	return b.String()
}

func comments(b *strings.Builder, lines []string) {
	for _, line := range lines {
		b.WriteString(strings.TrimRight("# "+line, " ") + "\n")
	}
}

func text(b *strings.Builder, mark byte, s string) {
	for line := range strings.Lines(s) {
		body, whole := strings.CutSuffix(line, "\n")
		b.WriteByte(mark)
		if body != "" {
			b.WriteString(" " + body)
		}
		b.WriteByte('\n')
		if !whole {
			b.WriteString("\\\n")
		}
	}
}

// isText reports whether a transcript can hold s line by line.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' })
}

// join quotes words as a POSIX shell does, and with $'…' what would not stay on the line.
func join(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		switch {
		case !isText(word) || strings.ContainsAny(word, "\n\t"):
			words[i] = "$" + escape(word)
		case word == "" || strings.ContainsAny(word, " '\"\\|&;<>()$`*?[{!") || word[0] == '#' || word[0] == '~':
			words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		default:
			words[i] = word
		}
	}
	return strings.Join(words, " ")
}

// escape writes the bytes of a word between the quotes of $'…'.
func escape(word string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, c := range []byte(word) {
		switch {
		case c == '\'' || c == '\\':
			b.WriteString(`\` + string(rune(c)))
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// Diff says what new answers differently from old, command by command, or "" if nothing. Commands are compared in order; one
// that only one of them has is shown with its mark, - or +.
func Diff(old, new *Transcript) string {
	var b strings.Builder
	if !slices.Equal(old.Header, new.Header) {
		marked(&b, '-', header(old))
		marked(&b, '+', header(new))
	}
	merge(asked(old), asked(new), func(i, j int) {
		switch {
		case j < 0:
			marked(&b, '-', old.Exchanges[i].String())
		case i < 0:
			marked(&b, '+', new.Exchanges[j].String())
		default:
			compare(&b, old.Exchanges[i], new.Exchanges[j])
		}
	})
	return b.String()
}

func header(t *Transcript) string {
	var b strings.Builder
	comments(&b, t.Header)
	return b.String()
}

// asked is what was asked of the tools, without the answers.
func asked(t *Transcript) []string {
	var all []string
	for _, x := range t.Exchanges {
		all = append(all, Exchange{Argv: x.Argv, Stdin: x.Stdin, Input: x.Input}.String())
	}
	return all
}

// merge walks both along their longest common sequence. An index is -1 where only the other one has something.
func merge(old, new []string, show func(i, j int)) {
	common := make([][]int, len(old)+1) // [i][j]: how long it is for old[i:] and new[j:]
	for i := range common {
		common[i] = make([]int, len(new)+1)
	}
	for i := len(old) - 1; i >= 0; i-- {
		for j := len(new) - 1; j >= 0; j-- {
			common[i][j] = max(common[i+1][j], common[i][j+1])
			if old[i] == new[j] {
				common[i][j] = 1 + common[i+1][j+1]
			}
		}
	}
	for i, j := 0, 0; i < len(old) || j < len(new); {
		switch {
		case i < len(old) && j < len(new) && old[i] == new[j]:
			show(i, j)
			i, j = i+1, j+1
		case j == len(new) || i < len(old) && common[i+1][j] >= common[i][j+1]:
			show(i, -1)
			i++
		default:
			show(-1, j)
			j++
		}
	}
}

// compare shows two exchanges with the same question if their answers differ.
func compare(b *strings.Builder, old, new Exchange) {
	question := Exchange{Argv: old.Argv, Stdin: old.Stdin, Input: old.Input}.String()
	before, after := strings.TrimPrefix(old.String(), question), strings.TrimPrefix(new.String(), question)
	if before == after {
		return
	}
	marked(b, ' ', question)
	oldLines, newLines := slices.Collect(strings.Lines(before)), slices.Collect(strings.Lines(after))
	merge(oldLines, newLines, func(i, j int) {
		switch {
		case j < 0:
			marked(b, '-', oldLines[i])
		case i < 0:
			marked(b, '+', newLines[j])
		default:
			marked(b, ' ', oldLines[i])
		}
	})
}

func marked(b *strings.Builder, mark byte, s string) {
	for line := range strings.Lines(s) {
		b.WriteByte(mark)
		b.WriteString(line)
	}
}
