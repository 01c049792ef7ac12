package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/rpc/client"
)

// screen is a writer that several goroutines may use; seen is called with everything so far.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	seen func(all string)
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.text.Write(p)
	if s.seen != nil {
		s.seen(s.text.String())
	}
	return n, err
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// app is a command line whose streams the test holds. Only stdin is a terminal.
func (l *lab) app(stdin io.Reader, stdout, stderr io.Writer) *App {
	return &App{
		Getenv: func(key string) string { return map[string]string{"CAIRN_CONFIG": l.config}[key] },
		Stdin:  stdin, Stdout: stdout, Stderr: stderr,
		Terminal: func(stream any) bool { return stream == stdin && stdin != nil },
		Now:      func() time.Time { return now }, Dial: client.Dial,
	}
}

// TestFollowResumes breaks the stream after each event, while more happen, and resumed streams repeat an event. Every event must
// be printed once and in order.
func TestFollowResumes(t *testing.T) {
	l := newLab(t)
	l.breaks, l.repeats = 4, true
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	lines := 0
	stdout := &screen{seen: func(all string) {
		for ; lines < strings.Count(all, "\n"); lines++ {
			if lines >= 2 { // what there was has been listed; from now on each line makes something happen
				go l.happen()
			}
		}
		if lines >= 8 {
			cancel()
		}
	}}
	stderr := &screen{}
	if code := l.app(nil, stdout, stderr).Run(ctx, []string{"events", "--follow", "-o", "name"}); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if want := "event/1\nevent/2\nevent/3\nevent/4\nevent/5\nevent/6\nevent/7\nevent/8\n"; !strings.HasPrefix(stdout.String(), want) {
		t.Errorf("got\n%s", stdout)
	}
	if n := strings.Count(stderr.String(), "going on when a node answers"); n != 4 {
		t.Errorf("%d of 4 interruptions were told:\n%s", n, stderr)
	}
}

// happen makes something happen.
func (l *lab) happen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell(docsID, "news")
}

// TestProgressCounts: on a terminal the line is drawn again every second, and cleared at the end.
func TestProgressCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out screen
		p := newProgress(&out, "share/docs", time.Now, false, true)
		p.state("creating")
		<-time.After(2500 * time.Millisecond)
		p.state("available")
		p.end()
		<-time.After(5 * time.Second) // nothing is drawn after the end
		want := strings.Join([]string{"", "share/docs: creating, 0s", "share/docs: creating, 1s", "share/docs: creating, 2s", "share/docs: available, 2s", ""}, clearLine)
		if out.String() != want {
			t.Errorf("got  %q\nwant %q", out.String(), want)
		}
	})
}

// TestProgressLines: --progress writes a line for each change and no more.
func TestProgressLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out screen
		p := newProgress(&out, "share/docs", time.Now, true, true)
		for _, state := range []string{"creating", "creating", "creating: pool\nis slow", "available"} {
			p.state(state)
			<-time.After(time.Second)
		}
		p.end()
		want := "share/docs: creating, 0s\nshare/docs: creating: pool\\nis slow, 2s\nshare/docs: available, 3s\n"
		if out.String() != want {
			t.Errorf("got  %q\nwant %q", out.String(), want)
		}
	})
}

// TestProgressIsSilent: without a terminal and without --progress nothing is written.
func TestProgressIsSilent(t *testing.T) {
	var out screen
	p := newProgress(&out, "share/docs", time.Now, false, false)
	p.state("creating")
	p.end()
	if out.String() != "" {
		t.Errorf("got %q", out.String())
	}
}

// TestProgressOnTerminal: a terminal on stderr is enough to see progress, and the line is gone in the end.
func TestProgressOnTerminal(t *testing.T) {
	o := newLab(t).cairn(t.Context(), run{args: []string{"share", "create", "new", "--size", "1GiB", "-o", "name"}, terminals: "stderr"})
	if o.code != exitOK || o.stdout != "share/new\n" {
		t.Fatalf("exit code %d: %q, %q", o.code, o.stdout, o.stderr)
	}
	if !strings.HasPrefix(o.stderr, clearLine+"share/new: creating, ") || !strings.HasSuffix(o.stderr, clearLine) || strings.Contains(o.stderr, "\n") {
		t.Errorf("stderr %q", o.stderr)
	}
}

// TestUnavailable: a cluster that cannot decide is tried for as long as --timeout says, always with the same request.
func TestUnavailable(t *testing.T) {
	l := newLab(t)
	l.fail["CreateShare"] = fmt.Errorf("cluster: no leader: %w", cairn.ErrUnavailable)
	o := l.cairn(t.Context(), run{args: []string{"share", "create", "new", "--size", "1GiB", "--timeout", "2s"}})
	if want := "cairn: cluster: no leader: unavailable; nothing was changed; see: cairn cluster status\n"; o.code != exitUnavailable || o.stderr != want {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
	if asked := l.asked(); len(asked) < 2 || len(slices.Compact(asked)) != 1 {
		t.Errorf("sent: %s", asked)
	}
}

// TestWaitError: an end before it was done says how far it was, and that it goes on.
func TestWaitError(t *testing.T) {
	other := errors.New("share docs: gone")
	for _, c := range []struct {
		name, last string
		err        error
		want       string
		code       int
	}{
		{"done", "available", nil, "", exitOK},
		{"time-out", "creating", fmt.Errorf("wait: %w", cairn.ErrTimeout), "share/docs: creating: timed out; it goes on, see: cairn why share/docs", exitTimeout},
		{"interrupt", "creating", context.Canceled, "share/docs: creating: context canceled; it goes on, see: cairn why share/docs", exitInterrupted},
		{"nothing seen", "", fmt.Errorf("wait: %w", cairn.ErrUnavailable), "wait: unavailable", exitUnavailable},
		{"failed", "creating", other, "share docs: gone", exitOther},
	} {
		err := waitError("share/docs", c.last, c.err)
		if exitCode(err) != c.code || err != nil && err.Error() != c.want {
			t.Errorf("%s: %v, exit code %d", c.name, err, exitCode(err))
		}
	}
}

// TestInterruptedQuestion: a signal ends a command that waits for an answer, and nothing is sent.
func TestInterruptedQuestion(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	stdin, keyboard := io.Pipe() // nobody types
	defer keyboard.Close()
	stderr := &screen{seen: func(all string) {
		if strings.Contains(all, "[y/N]") {
			cancel()
		}
	}}
	if code := l.app(stdin, io.Discard, stderr).Run(ctx, []string{"share", "delete", "docs"}); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if asked := l.asked(); len(asked) > 0 {
		t.Errorf("sent: %s", asked)
	}
}

// TestLeaveTakesDrainBack: a share that arrives between the look and the drain keeps the node, and the drain is undone.
func TestLeaveTakesDrainBack(t *testing.T) {
	l := newLab(t)
	l.then(func() { l.held = []string{"default/late"} })
	o := l.cairn(t.Context(), run{args: []string{"node", "leave", "n1"}})
	if o.code != exitConflict || !strings.Contains(o.stderr, "default/late") {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
	var last string
	for _, request := range l.asked() {
		last = request
	}
	if last != `DrainNode {"node":"n1","undo":true}` {
		t.Errorf("the last request is %s", last)
	}
}

// TestSecretFileIsNotReplaced: what appears while the key is made is not overwritten either.
func TestSecretFileIsNotReplaced(t *testing.T) {
	path := t.TempDir() + "/key"
	file, err := openSecret(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("another's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := file.commit([]byte("mine")); !errors.Is(err, cairn.ErrExists) {
		t.Errorf("commit: %v", err)
	}
	if err := file.close(); err != nil {
		t.Error(err)
	}
	if content, err := os.ReadFile(path); string(content) != "another's" {
		t.Errorf("the file holds %q, %v", content, err)
	}
}

// TestCreateUserWritesConfig: the file is the owner's alone, can be used, and is never overwritten by mistake.
func TestCreateUserWritesConfig(t *testing.T) {
	l := newLab(t)
	path := t.TempDir() + "/ann.toml"
	args := []string{"user", "create", "ann", "--role", "member", "--project", "team-a", "--out", path}
	if o := l.cairn(t.Context(), run{args: args}); o.code != exitOK {
		t.Fatalf("exit code %d: %s", o.code, o.stderr)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info, err)
	}
	cfg, err := client.LoadConfig(path)
	if err != nil || cfg.Project != "team-a" || cfg.Addresses[0] != l.address || string(cfg.Certificate) != "the certificate\n" || !bytes.Contains(cfg.Key, []byte("PRIVATE KEY")) {
		t.Errorf("configuration %v, %v", cfg, err)
	}
	before, _ := os.ReadFile(path)
	l.asked()
	if o := l.cairn(t.Context(), run{args: args}); o.code != exitConflict {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
	if asked := l.asked(); len(asked) > 0 {
		t.Errorf("the certificate was renewed although the file could not be written: %s", asked)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the file was changed")
	}
	if o := l.cairn(t.Context(), run{args: append(args, "--force")}); o.code != exitOK {
		t.Errorf("exit code %d: %s", o.code, o.stderr)
	}
	if after, _ := os.ReadFile(path); bytes.Equal(before, after) {
		t.Error("--force left the old key")
	}
	if left, _ := os.ReadDir(path[:strings.LastIndex(path, "/")]); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
