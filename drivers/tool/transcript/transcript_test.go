package transcript_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

func TestFormat(t *testing.T) {
	datadriven.RunTest(t, "testdata/format", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "parse":
			tr, err := transcript.Parse(d.Input + "\n")
			if err != nil {
				return err.Error() + "\n"
			}
			return tr.String()
		case "diff":
			old, new, ok := strings.Cut(d.Input+"\n", "===\n")
			if !ok {
				d.Fatalf(t, "no === between two transcripts")
			}
			return transcript.Diff(parse(t, old), parse(t, new))
		}
		d.Fatalf(t, "unknown command %s", d.Cmd)
		return ""
	})
}

func parse(t testing.TB, s string) *transcript.Transcript {
	t.Helper()
	tr, err := transcript.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// Whatever a transcript can hold comes back from its text.
func TestRoundTrip(t *testing.T) {
	line := rapid.StringMatching("[ -~\té]{0,8}")
	text := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(line, 0, 3).Draw(t, "lines"), "\n")
	})
	rapid.Check(t, func(t *rapid.T) {
		tr := &transcript.Transcript{Header: []string{"a tool"}}
		for i := range rapid.IntRange(1, 4).Draw(t, "exchanges") {
			x := transcript.Exchange{
				Argv:   rapid.SliceOfN(rapid.String(), 1, 4).Draw(t, "argv"),
				Stdin:  text.Draw(t, "stdin"),
				Stdout: text.Draw(t, "stdout"),
				Stderr: text.Draw(t, "stderr"),
				Code:   rapid.IntRange(0, 255).Draw(t, "code"),
			}
			if i > 0 && rapid.Bool().Draw(t, "commented") {
				x.Comments = []string{"why", "", "  and how"}
			}
			tr.Exchanges = append(tr.Exchanges, x)
		}
		got, err := transcript.Parse(tr.String())
		if err != nil {
			t.Fatalf("%v in\n%s", err, tr)
		}
		for i := range got.Exchanges {
			got.Exchanges[i].Line = 0
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tr) {
			t.Fatalf("read back: %q\nnot %q\nfrom\n%s", got, tr, tr)
		}
	})
}

// sh is a real tool that writes text, fails, and streams bytes that no transcript could hold.
func sh(script string, args ...string) tool.Cmd {
	return tool.Cmd{Name: "sh", Args: append([]string{"-c", script, "sh"}, args...)}
}

// numbers finds what differs in every run of these tests: words such as id=8127.
func numbers(_ []string, output string) (cells []transcript.Cell) {
	for _, at := range regexp.MustCompile(`id=\d+`).FindAllStringIndex(output, -1) {
		cells = append(cells, transcript.Cell{Start: at[0] + 3, End: at[1], Form: "%d"})
	}
	for _, at := range regexp.MustCompile(`at \S+`).FindAllStringIndex(output, -1) {
		cells = append(cells, transcript.Cell{Start: at[0] + 3, End: at[1], Form: "noon"})
	}
	return cells
}

// place is a directory with a file that holds two numbers of this run.
func place(t *testing.T, first, second string) (names *transcript.Names) {
	t.Helper()
	dir := t.TempDir()
	line := fmt.Sprintf("id=%s id=%s id=%[1]s at %[1]s:00\n", first, second)
	if err := os.WriteFile(filepath.Join(dir, "ids"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	return &transcript.Names{Fixed: map[string]string{"/dir": dir}, Cells: numbers}
}

func record(t *testing.T, first, second string) *transcript.Transcript {
	t.Helper()
	names := place(t, first, second)
	r := &transcript.Recorder{Tools: tool.NewMachine(), Names: names, Header: []string{"sh"}}
	run := func(c tool.Cmd) {
		if _, err := r.Run(t.Context(), c); err != nil && !errors.As(err, new(*tool.ExitError)) {
			t.Error(err)
		}
	}
	run(tool.Cmd{Name: "cat", Args: []string{names.Fixed["/dir"] + "/ids"}})
	r.Comment("a number that was seen before has its name, as an argument, too")
	run(sh(`echo "id=$1"`, second))
	run(sh(`cd "$1" && pwd >&2; exit 3`, names.Fixed["/dir"]))
	run(tool.Cmd{Name: "cat", Stdin: []byte("in\n")})
	var stream bytes.Buffer
	if _, err := r.Stream(t.Context(), sh(`printf '\000\001\002\003\004\005\006\007\010\011'; echo sent >&2`), nil, &stream); err != nil {
		t.Error(err)
	}
	damaged := bytes.Clone(stream.Bytes())
	damaged[3] ^= 0xff
	for _, fed := range [][]byte{stream.Bytes(), stream.Bytes()[:5], damaged} {
		if _, err := r.Stream(t.Context(), tool.Cmd{Name: "cksum"}, bytes.NewReader(fed), nil); err != nil {
			t.Error(err)
		}
	}
	tr, err := r.Transcript()
	if err != nil {
		t.Error(err)
	}
	return tr
}

func TestRecord(t *testing.T) {
	first, second := record(t, "8127", "9000"), record(t, "17", "4")
	if diff := transcript.Diff(first, second); diff != "" {
		t.Errorf("two recordings differ:\n%s", diff)
	}
	datadriven.RunTest(t, "testdata/recorded", func(*testing.T, *datadriven.TestData) string { return first.String() })
}

func TestRecordHidesSecrets(t *testing.T) {
	r := &transcript.Recorder{Tools: tool.NewMachine(), Names: &transcript.Names{}}
	c := sh(`read -r key; echo "$key"; echo "wrong key: $1" >&2`, "hunter2")
	c.Stdin, c.Redact = []byte("hunter2\n"), []string{"hunter2"}
	if got, err := r.Run(t.Context(), c); err != nil || string(got.Stdout) != "hunter2\n" {
		t.Errorf("Run: %q, %v", got.Stdout, err)
	}
	tr, err := r.Transcript()
	if err != nil || strings.Contains(tr.String(), "hunter2") || strings.Count(tr.String(), "***") != 4 {
		t.Errorf("transcript: %v\n%s", err, tr)
	}
}

// What is no answer of a tool must not look like one.
func TestRecordHasNoGaps(t *testing.T) {
	for _, c := range []tool.Cmd{sh("kill $$"), sh(`printf '\377'`), {Name: "cairn-no-such-tool"}} {
		r := &transcript.Recorder{Tools: tool.NewMachine(), Names: &transcript.Names{}}
		_, _ = r.Run(t.Context(), c) // the recorder's judgement is what is tested
		if tr, err := r.Transcript(); err == nil || len(tr.Exchanges) > 0 {
			t.Errorf("%s was recorded: %v\n%s", c, err, tr)
		}
	}
}

// One command may feed another while both are recorded.
func TestRecordPipe(t *testing.T) {
	r := &transcript.Recorder{Tools: tool.NewMachine(), Names: &transcript.Names{}}
	in, out := io.Pipe()
	sent := make(chan error)
	go func() {
		_, err := r.Stream(t.Context(), sh("printf abc"), nil, out)
		sent <- errors.Join(err, out.Close())
	}()
	_, err := r.Stream(t.Context(), sh("cat"), in, nil)
	if err := errors.Join(err, <-sent); err != nil {
		t.Error(err)
	}
	tr, err := r.Transcript()
	if want := "$ sh -c 'printf abc' sh\n|= stream 1\n$ sh -c cat sh\n<= stream 1\n| abc\n\\\n"; err != nil || tr.String() != want {
		t.Errorf("transcript: %v\n%s\nwant\n%s", err, tr, want)
	}
}

// judge is a testing.TB that keeps what a test would have failed with.
type judge struct {
	testing.TB
	failures []string
	cleanups []func()
}

func (j *judge) Errorf(format string, args ...any) {
	j.failures = append(j.failures, fmt.Sprintf(format, args...))
}
func (j *judge) Failed() bool      { return len(j.failures) > 0 }
func (j *judge) Helper()           {}
func (j *judge) Cleanup(fn func()) { j.cleanups = append(j.cleanups, fn) }

func (j *judge) end() string {
	for _, fn := range j.cleanups {
		fn()
	}
	return strings.Join(j.failures, "\n")
}

const listed = `$ zfs list /dir/a
| /dir/a
$ zfs destroy a
! cannot destroy 'a': busy
? 1
$ zfs send a
|= stream 1
$ zfs receive b
<= stream 1
`

func zfs(args ...string) tool.Cmd { return tool.Cmd{Name: "zfs", Args: args} }

func TestPlay(t *testing.T) {
	names := &transcript.Names{Fixed: map[string]string{"/dir": "/here"}}
	p := transcript.NewPlayer(t, parse(t, listed), names)
	got, err := p.Run(t.Context(), zfs("list", "/here/a"))
	if err != nil || !strings.Contains(string(got.Stdout), "/here/a") {
		t.Errorf("list: %q, %v", got.Stdout, err)
	}
	var exit *tool.ExitError
	if _, err := p.Run(t.Context(), zfs("destroy", "a")); !errors.As(err, &exit) || exit.Code != 1 || string(exit.Stderr) != "cannot destroy 'a': busy\n" {
		t.Errorf("destroy: %v", err)
	} else if text := "zfs destroy a: exit 1: cannot destroy 'a': busy"; err.Error() != text {
		t.Errorf("destroy: %v; want %s", err, text)
	}
	var stream bytes.Buffer
	if _, err := p.Stream(t.Context(), zfs("send", "a"), nil, &stream); err != nil || stream.Len() == 0 {
		t.Errorf("send: %q, %v", &stream, err)
	}
	if _, err := p.Stream(t.Context(), zfs("receive", "b"), &stream, nil); err != nil || stream.Len() > 0 {
		t.Errorf("receive: %v with %d bytes left", err, stream.Len())
	}
}

func TestPlayRefuses(t *testing.T) {
	text := "$ a\n| 1\n$ b\n$ b\n| again\n"
	tests := []struct {
		name     string
		anyOrder bool
		run      []string
		want     string
	}{
		{"another command", false, []string{"b"}, "the command is\n$ b\nand the transcript, line 1, has\n$ a\n| 1\n"},
		{"one too many", false, []string{"a", "b", "b", "b"}, "the transcript has no such command left:\n$ b\n"},
		{"not all", false, []string{"a"}, "2 commands of the transcript were not run; the next, line 3:\n$ b\n"},
		{"any order", true, []string{"b", "a", "b"}, ""},
		{"unknown", true, []string{"c"}, "the transcript has no such command left:\n$ c\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := &judge{TB: t}
			p := transcript.NewPlayer(j, parse(t, text), nil)
			p.AnyOrder = tt.anyOrder
			failed := false
			for _, name := range tt.run {
				_, err := p.Run(context.Background(), tool.Cmd{Name: name})
				failed = failed || err != nil
				if errors.As(err, new(*tool.ExitError)) {
					t.Errorf("%s: %v looks like an answer", name, err)
				}
			}
			if got := j.end(); got != tt.want || strings.HasPrefix(tt.want, "the ") != failed {
				t.Errorf("failures: %q, error %t; want %q", got, failed, tt.want)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	tr := parse(t, record(t, "8127", "9000").String())
	transcript.Verify(t, tr, tool.NewMachine(), place(t, "33", "2222"))

	for i, change := range []func(x *transcript.Exchange){
		func(x *transcript.Exchange) { x.Stdout = "other\n" },
		func(x *transcript.Exchange) { x.Stderr = "other\n" },
		func(x *transcript.Exchange) { x.Code = 9 },
		func(x *transcript.Exchange) { x.Argv = []string{"cairn-no-such-tool"} },
	} {
		wrong := parse(t, tr.String())
		change(&wrong.Exchanges[2])
		j := &judge{TB: t}
		transcript.Verify(j, wrong, tool.NewMachine(), place(t, "33", "2222"))
		if len(j.failures) != 1 {
			t.Errorf("change %d was found %d times: %s", i, len(j.failures), j.failures)
		}
	}
}
