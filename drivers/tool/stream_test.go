package tool_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/tool"
)

var errLine = errors.New("line cut")

// Far more than a pipe holds, both ways: not a byte may be missing.
func TestStream(t *testing.T) {
	data := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	var out bytes.Buffer
	result, err := tool.NewMachine().Stream(t.Context(), sh("echo note >&2; cat"), bytes.NewReader(data), &out)
	if err != nil || string(result.Stderr) != "note\n" || len(result.Stdout) != 0 {
		t.Errorf("Stream: %+v, %v", result, err)
	}
	if sha256.Sum256(out.Bytes()) != sha256.Sum256(data) {
		t.Errorf("Stream passed on %d bytes that are not the %d given", out.Len(), len(data))
	}
}

func TestStreamOneWay(t *testing.T) {
	m := tool.NewMachine()
	result, err := m.Stream(t.Context(), sh("wc -c"), strings.NewReader("four"), nil)
	if err != nil || strings.TrimSpace(string(result.Stdout)) != "4" {
		t.Errorf("Stream without a writer: %q, %v; want what wc says", result.Stdout, err)
	}
	var out bytes.Buffer
	cmd := sh("cat")
	cmd.Stdin = []byte("given")
	if _, err := m.Stream(t.Context(), cmd, nil, &out); err != nil || out.String() != "given" {
		t.Errorf("Stream without a reader: %q, %v; want Cmd.Stdin", &out, err)
	}
}

func TestStreamFails(t *testing.T) {
	never, stop := io.Pipe() // a peer that says nothing
	defer stop.Close()
	tests := []struct {
		name   string
		cmd    tool.Cmd
		stdin  io.Reader
		stdout io.Writer
		want   error
		text   string
	}{
		{"reader", sh("cat"), io.MultiReader(strings.NewReader("begun"), iotest.ErrReader(errLine)), io.Discard, errLine, "read its input"},
		{"reader, and the tool minds", sh("cat >&2; exit 3"), iotest.ErrReader(errLine), io.Discard, errLine, "exit 3"},
		{"writer", sh("cat /dev/zero"), strings.NewReader(""), brokenWriter{}, errLine, "write its output"},
		{"tool, before it reads", sh("echo no >&2; exit 4"), never, io.Discard, nil, "exit 4: no"},
		{"too much on stderr", sh("cat /dev/zero >&2"), never, io.Discard, tool.ErrOutput, "outcome unknown"},
		{"not installed", tool.Cmd{Name: "cairn-no-such-tool"}, never, io.Discard, cairn.ErrNotSupported, "not started"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := tool.NewMachine()
			m.MaxOutput = 1 << 16
			_, err := m.Stream(t.Context(), tt.cmd, tt.stdin, tt.stdout)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Stream: %v; want %v that says %q", err, tt.want, tt.text)
			}
		})
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errLine }

// A tool may have heard enough: the rest of its input is nobody's error.
func TestStreamEndsEarly(t *testing.T) {
	never, stop := io.Pipe()
	defer stop.Close()
	var out bytes.Buffer
	_, err := tool.NewMachine().Stream(t.Context(), sh("head -c 3"), io.MultiReader(strings.NewReader("enough"), never), &out)
	if err != nil || out.String() != "eno" {
		t.Errorf("Stream: %q, %v", &out, err)
	}
}

// The tool has ended well, but what it wrote has not arrived: that is no success.
func TestStreamIsNotReadToTheEnd(t *testing.T) {
	hung, resume := io.Pipe()
	defer hung.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	m := tool.NewMachine()
	m.Grace = 0
	if _, err := m.Stream(ctx, sh("echo lost"), nil, resume); !errors.Is(err, cairn.ErrTimeout) {
		t.Errorf("Stream: %v; want cairn.ErrTimeout", err)
	}
}

// The context ends while the tool waits for input, and while the caller's writer hangs.
func TestStreamIsKilled(t *testing.T) {
	never, stop := io.Pipe()
	defer stop.Close()
	hung, resume := io.Pipe()
	defer hung.Close()
	for name, stdout := range map[string]io.Writer{"tool": io.Discard, "writer": resume} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			m := tool.NewMachine()
			m.Grace /= 20
			child := make(chan int, 1)
			go func() { child <- readPid(t, file); cancel() }()
			_, err := m.Stream(ctx, sh(`sleep 1000 & echo $! > "$1.tmp"; mv "$1.tmp" "$1"; echo more; wait; cat`, file), never, stdout)
			if !errors.Is(err, cairn.ErrUnknownOutcome) {
				t.Errorf("Stream: %v; want cairn.ErrUnknownOutcome", err)
			}
			awaitEnd(t, <-child)
		})
	}
}
