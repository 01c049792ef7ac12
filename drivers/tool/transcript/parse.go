package transcript

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Parse reads a transcript. An error names the line.
func Parse(s string) (*Transcript, error) {
	p := parser{t: &Transcript{}}
	for line := range strings.Lines(s) {
		p.line++
		line, whole := strings.CutSuffix(line, "\n")
		err := errors.New("does not end with a newline")
		if whole {
			err = p.read(line)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", p.line, err)
		}
	}
	if len(p.comments) > 0 {
		return nil, fmt.Errorf("line %d: a comment and no command after it", p.line)
	}
	return p.t, nil
}

// parser reads line by line.
type parser struct {
	t        *Transcript
	line     int
	comments []string // not yet given to a command
	stage    int      // of the last line: a command's lines come in the order of marks
	text     *string  // where the last line of text went; nil if it cannot be continued by a backslash
	streams  int
}

// marks are the lines of an exchange in the order in which they stand.
const marks = "$<|!?"

func (p *parser) read(line string) error {
	if line == "" {
		if len(p.t.Exchanges) == 0 && len(p.t.Header) == 0 {
			p.t.Header, p.comments = p.comments, nil
		}
		p.stage, p.text = len(marks), nil
		return nil
	}
	mark, rest := line[0], line[1:]
	if mark == '\\' && rest == "" {
		return p.unended()
	}
	p.text = nil
	if mark == '#' {
		p.comments = append(p.comments, strings.TrimPrefix(rest, " "))
		p.stage = len(marks)
		return nil
	}
	stage := strings.IndexByte(marks, mark)
	if stage < 0 {
		return fmt.Errorf("%q is no mark", mark)
	}
	if mark == '$' {
		p.stage = 0
		return p.command(rest)
	}
	if len(p.t.Exchanges) == 0 || len(p.comments) > 0 || stage < p.stage {
		return fmt.Errorf("%q does not belong to a command", mark)
	}
	p.stage = stage
	return p.answer(mark, rest, &p.t.Exchanges[len(p.t.Exchanges)-1])
}

func (p *parser) command(rest string) error {
	argv, err := split(rest)
	if err == nil && len(argv) == 0 {
		err = errors.New("no command")
	}
	p.t.Exchanges = append(p.t.Exchanges, Exchange{Argv: argv, Comments: p.comments, Line: p.line})
	p.comments = nil
	return err
}

func (p *parser) answer(mark byte, rest string, x *Exchange) error {
	if stream, ok := strings.CutPrefix(rest, "= "); ok && (mark == '<' || mark == '|') {
		return p.stream(mark, stream, x)
	}
	body, ok := strings.CutPrefix(rest, " ")
	if !ok && rest != "" {
		return fmt.Errorf("no space after %q", mark)
	}
	switch mark {
	case '?':
		code, err := strconv.Atoi(body)
		if err != nil || code < 1 || code > 255 || x.Code != 0 {
			return fmt.Errorf("%q is no exit code", body)
		}
		x.Code = code
		return nil
	case '<':
		p.text = &x.Stdin
	case '|':
		p.text = &x.Stdout
	case '!':
		p.text = &x.Stderr
	}
	if *p.text != "" && !strings.HasSuffix(*p.text, "\n") {
		return errors.New("text after a line that does not end")
	}
	if x.Input.Stream != 0 && mark == '<' || x.Output != 0 && mark == '|' {
		return errors.New("text beside a stream")
	}
	*p.text += body + "\n"
	return nil
}

func (p *parser) unended() error {
	if p.text == nil || strings.TrimSuffix(*p.text, "\n") == *p.text {
		return errors.New("no line of text to continue")
	}
	*p.text = strings.TrimSuffix(*p.text, "\n")
	if *p.text == "" {
		return errors.New("no text at all")
	}
	p.text = nil
	return nil
}

func (p *parser) stream(mark byte, s string, x *Exchange) error {
	var number int
	percent, damaged := 100, false
	words := strings.Fields(s)
	bad := fmt.Errorf("%q is no stream", s)
	read := func(s, suffix string, into *int) bool {
		s, ok := strings.CutSuffix(s, suffix)
		n, err := strconv.Atoi(s)
		*into = n
		return ok && err == nil && n > 0
	}
	if len(words) < 2 || words[0] != "stream" || !read(words[1], "", &number) {
		return bad
	}
	switch how := strings.Join(words[2:max(2, len(words)-1)], " "); {
	case len(words) == 2:
	case mark == '<' && (how == "to" || how == "damaged at") && read(words[len(words)-1], "%", &percent) && percent < 100:
		damaged = how != "to"
	default:
		return bad
	}
	if mark == '|' {
		if p.streams++; number != p.streams || x.Stdout != "" {
			return fmt.Errorf("stream %d is written where stream %d is due", number, p.streams)
		}
		x.Output = number
		return nil
	}
	if number > p.streams || x.Stdin != "" || x.Input.Stream != 0 {
		return fmt.Errorf("stream %d is read where it is not there", number)
	}
	x.Input = Input{Stream: number, Percent: percent, Damaged: damaged}
	return nil
}

// split is the inverse of join. Of a shell's language it knows words, '…', \c and $'…'.
func split(s string) ([]string, error) {
	var argv []string
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		word, rest, err := cutWord(s)
		if err != nil {
			return nil, err
		}
		argv, s = append(argv, word), rest
	}
	return argv, nil
}

func cutWord(s string) (word, rest string, err error) {
	for s != "" && s[0] != ' ' {
		switch {
		case s[0] == '\'':
			body, after, ok := strings.Cut(s[1:], "'")
			if !ok {
				return "", "", errors.New("a quote without an end")
			}
			word, s = word+body, after
		case strings.HasPrefix(s, "$'"):
			body, after, err := unescape(s[2:])
			if err != nil {
				return "", "", err
			}
			word, s = word+body, after
		case s[0] == '\\' && len(s) > 1:
			word, s = word+s[1:2], s[2:]
		case strings.ContainsRune("\"\\|&;<>()$`*?", rune(s[0])), word == "" && (s[0] == '#' || s[0] == '~'):
			return "", "", fmt.Errorf("%q is not quoted", s[0])
		default:
			word, s = word+s[:1], s[1:]
		}
	}
	return word, s, nil
}

// unescape reads to the end of $'…'.
func unescape(s string) (word, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\'':
			return b.String(), s[i+1:], nil
		case s[i] != '\\':
			b.WriteByte(s[i])
		case i+1 < len(s) && (s[i+1] == '\'' || s[i+1] == '\\'):
			i++
			b.WriteByte(s[i])
		case i+3 < len(s) && s[i+1] == 'x':
			c, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
			if err != nil {
				return "", "", fmt.Errorf(`\%s is no byte`, s[i+1:i+4])
			}
			b.WriteByte(byte(c))
			i += 3
		default:
			return "", "", errors.New("an escape that is neither \\', \\\\ nor \\xhh")
		}
	}
	return "", "", errors.New("a quote without an end")
}
