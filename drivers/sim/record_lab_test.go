//go:build lab

package sim_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/drivers/sim"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// recordPatience bounds a command under emulation.
const recordPatience = time.Minute

func TestLabRecordZFS(t *testing.T) {
	recordZFS(t, "zfs-aside", "zfs-create", "zfs-snapshot", "zfs-send", "zfs-key", "zfs-space", "zpool")
}

func TestLabRecordZFSFaults(t *testing.T) { recordZFS(t, "zfs-fault") }

func recordZFS(t *testing.T, files ...string) {
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			makePools(t, dir)
			r := newRecorder(t, dir, "zfs", "version")
			defer save(t, r, file)
			runScript(t, r, file)
		})
	}
}

func TestLabRecordExportfs(t *testing.T) {
	r := newRecorder(t, t.TempDir(), "dpkg-query", "-W", "nfs-kernel-server")
	defer save(t, r, "exportfs")
	runScript(t, r, "exportfs")
}

// makePools makes three pools on files: tank, other, and frail, whose disk can be taken away.
func makePools(t *testing.T, dir string) {
	disk := func(name, size string) string {
		file := filepath.Join(dir, "disks", name)
		machine(t, "truncate", "-s", size, file)
		return file
	}
	machine(t, "mkdir", filepath.Join(dir, "disks"))
	machine(t, "zpool", "create", "-m", filepath.Join(dir, "tank"), "tank", disk("tank", "640M"))
	machine(t, "zpool", "create", "-m", filepath.Join(dir, "other"), "other", disk("other", "256M"))
	machine(t, "losetup", "/dev/loop7", disk("frail", "256M"))
	machine(t, "dmsetup", "create", "frail", "--table", "0 524288 linear /dev/loop7 0")
	machine(t, "zpool", "create", "-m", filepath.Join(dir, "frail"), "frail", "/dev/mapper/frail")
	t.Cleanup(func() {
		for _, c := range [][]string{
			{"zpool", "destroy", "-f", "tank"}, {"zpool", "destroy", "-f", "other"}, {"zpool", "destroy", "-f", "frail"},
			{"dmsetup", "remove", "frail"}, {"losetup", "-d", "/dev/loop7"},
		} {
			machine(t, c...)
		}
	})
}

// machine runs what is not part of the transcript.
func machine(t *testing.T, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), recordPatience)
	defer cancel()
	got, err := tool.NewMachine().Run(ctx, tool.Cmd{Name: argv[0], Args: argv[1:]})
	if err != nil {
		t.Error(err)
	}
	return string(got.Stdout)
}

func newRecorder(t *testing.T, dir string, version ...string) *transcript.Recorder {
	return &transcript.Recorder{
		Tools:  tool.NewMachine(),
		Names:  &transcript.Names{Fixed: map[string]string{"/dir": dir}, Cells: sim.Cells, Order: sim.Order},
		Header: []string{strings.Join(strings.Fields(machine(t, version...)), " ")},
	}
}

func save(t *testing.T, r *transcript.Recorder, file string) {
	tr, err := r.Transcript()
	if err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("CAIRN_LAB_OUT"), file+".txt"), []byte(tr.String()), 0o644); err != nil {
		t.Error(err)
	}
}

// runScript runs the commands of testdata/<file>.script. Besides commands it knows
//
//	command |> NAME        keep what it writes as a stream
//	command <| NAME        feed it that stream
//	command <| NAME 50%    … up to there
//	command <| NAME damaged 50%
//	command << text        feed it a line
//	$last                  the output of the command before
//	await POOL STATE       wait until a pool is in that state
func runScript(t *testing.T, r *transcript.Recorder, file string) {
	data, err := os.ReadFile(filepath.Join("testdata", file+".script"))
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, r: r, streams: make(map[string][]byte)}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if comment, ok := strings.CutPrefix(line, "# "); ok {
			r.Comment(comment)
		} else if line != "" {
			s.line(line)
		}
	}
}

type script struct {
	t       *testing.T
	r       *transcript.Recorder
	streams map[string][]byte
	last    string
}

func (s *script) line(line string) {
	ctx, cancel := context.WithTimeout(s.t.Context(), recordPatience)
	defer cancel()
	line, text, fed := strings.Cut(line, " <<")
	line, into, _ := strings.Cut(line, " |> ")
	line, from, _ := strings.Cut(line, " <| ")
	c := s.command(line)
	switch {
	case c.Name == "await":
		s.await(c.Args[0], c.Args[1])
		return
	case fed:
		c.Stdin = []byte(strings.TrimPrefix(text, " ") + "\n")
	}
	var got tool.Result
	var err error
	var written strings.Builder
	switch {
	case into != "":
		_, err = s.r.Stream(ctx, c, nil, &written)
		s.streams[into] = []byte(written.String())
	case from != "":
		got, err = s.r.Stream(ctx, c, strings.NewReader(s.cut(from)), nil)
	default:
		got, err = s.r.Run(ctx, c)
	}
	if err != nil && !errors.As(err, new(*tool.ExitError)) {
		s.t.Errorf("%s: %v", line, err)
	}
	s.last = strings.TrimSpace(string(got.Stdout))
}

// command reads words as a shell does, with $last and the directory of this run.
func (s *script) command(line string) tool.Cmd {
	tr, err := transcript.Parse("$ " + strings.ReplaceAll(line, "$last", s.last) + "\n")
	if err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	argv := tr.Exchanges[0].Argv
	for i, arg := range argv {
		argv[i] = strings.ReplaceAll(arg, "/dir", s.r.Names.Fixed["/dir"])
	}
	return tool.Cmd{Name: argv[0], Args: argv[1:]}
}

func (s *script) cut(from string) string {
	words := strings.Fields(from)
	stream := s.streams[words[0]]
	if len(words) > 1 {
		percent := map[string]int{"50%": 50}[words[len(words)-1]]
		at := len(stream) * percent / 100
		if words[1] != "damaged" {
			return string(stream[:at])
		}
		stream = []byte(string(stream))
		stream[at] ^= 0xff
	}
	return string(stream)
}

func (s *script) await(pool, state string) {
	ctx, cancel := context.WithTimeout(s.t.Context(), recordPatience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := tool.NewMachine().Run(ctx, tool.Cmd{Name: "zpool", Args: []string{"list", "-H", "-o", "health", pool}})
		if strings.TrimSpace(string(got.Stdout)) == state {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("pool %s is not %s: %q, %v", pool, state, got.Stdout, err)
		}
	}
}
