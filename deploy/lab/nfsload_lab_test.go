//go:build lab

package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// fioTime bounds one run of fio, in which a hard mount may wait for a failover.
const fioTime = 5 * time.Minute

// job is one of fio on one file, past the client's cache; each block has its own checksum and says where it belongs.
func job(dir, file string, more ...string) []string {
	return append([]string{
		"--name=" + file, "--filename=" + filepath.Join(dir, file), "--ioengine=psync", "--direct=1", "--bs=16k", "--size=512k",
		"--fallocate=none", "--thread", "--verify=crc32c", "--verify_fatal=1",
	}, more...)
}

// fio runs jobs on the client to their end.
func (s *nfsFailover) fio(jobs ...[]string) {
	s.Helper()
	var args []string
	for _, one := range jobs {
		args = append(args, one...)
	}
	ctx, cancel := context.WithTimeout(s.Context(), fioTime)
	defer cancel()
	_, err := s.client().Run(ctx, tool.Cmd{Name: "fio", Args: args})
	check(s.T, err)
}

// lay writes files and verifies them.
func (s *nfsFailover) lay(files ...string) {
	s.Helper()
	var jobs [][]string
	for _, file := range files {
		jobs = append(jobs, job(s.dir, file, "--rw=write", "--do_verify=1"))
	}
	s.fio(jobs...)
	s.phase(fmt.Sprintf("%v written and verified", files))
}

// mount mounts the share on a node, or in the guest itself, by an address, until the test ends.
func (s *nfsFailover) mount(on tool.Runner, address, options string) string {
	s.Helper()
	dir, err := os.MkdirTemp("/srv", "client")
	check(s.T, err)
	_, err = on.Run(s.Context(), tool.Cmd{Name: "mount", Args: []string{"-t", "nfs", "-o", options, address + s.source, dir}})
	check(s.T, err)
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := on.Run(ctx, tool.Cmd{Name: "umount", Args: []string{"-f", "-l", dir}}); err != nil {
			s.Error(err)
		}
	})
	return dir
}

// nfsLoad is a fio that reads and verifies one file, and writes another one, until it is told to end.
type nfsLoad struct {
	s       *nfsFailover
	process *tool.Process
	said    string // file
}

func (s *nfsFailover) startLoad() *nfsLoad {
	s.Helper()
	l := &nfsLoad{s: s, said: filepath.Join(s.TempDir(), "fio.json")}
	forever := []string{"--time_based", "--runtime=1d", "--rate_iops=5"}
	args := append([]string{"--output-format=json", "--output=" + l.said}, job(s.dir, "settled", append(forever, "--rw=randread")...)...)
	args = append(args, job(s.dir, "rewritten", append(forever, "--rw=randwrite", "--norandommap", "--do_verify=0")...)...)
	process, err := s.client().Start(tool.Spec{Name: "fio", Args: args, OwnGroup: true})
	check(s.T, err)
	l.process = process
	s.Cleanup(func() { check(s.T, process.Kill()) })
	l.goesOn()
	s.phase("load")
	return l
}

// goesOn waits until the client has had answers to some reads and writes that it was still waiting for, or had not begun, when this was called.
func (l *nfsLoad) goesOn() {
	l.s.Helper()
	const some = 3
	reads, writes, err := l.answers()
	check(l.s.T, err)
	check(l.s.T, local.Await(l.s.Context(), "answers to the load", func(context.Context) (bool, error) {
		select {
		case <-l.process.Done():
			text, _ := os.ReadFile(l.said)
			text, _, _ = bytes.Cut(text, []byte("\n{"))
			return false, local.Fatal(fmt.Errorf("fio has ended: %w: %s", l.process.Wait(), text))
		default:
		}
		r, w, err := l.answers()
		if err == nil && (r < reads+some || w < writes+some) {
			err = fmt.Errorf("%d reads and %d writes since", r-reads, w-writes)
		}
		return err == nil, err
	}))
}

// answers are how many reads and writes of the client have been answered, by its kernel's count.
func (l *nfsLoad) answers() (reads, writes int, err error) {
	text, err := os.ReadFile("/proc/self/mountstats")
	if err != nil {
		return 0, 0, err
	}
	_, ours, found := strings.Cut(string(text), " mounted on "+l.s.dir+" ")
	if !found {
		return 0, 0, fmt.Errorf("mountstats: nothing is mounted on %s", l.s.dir)
	}
	for line := range strings.Lines(ours) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "READ:":
			reads, err = strconv.Atoi(fields[1])
		case "WRITE:":
			writes, err = strconv.Atoi(fields[1])
		case "device":
			return reads, writes, nil
		}
		if err != nil {
			return 0, 0, fmt.Errorf("mountstats: %w", err)
		}
	}
	return reads, writes, nil
}

// end ends the load, which must have met no error.
func (l *nfsLoad) end() {
	l.s.Helper()
	l.s.client().Must("pkill", "-INT", "-x", "fio")
	select {
	case <-l.process.Done():
	case <-time.After(fioTime):
		l.s.Fatal("fio does not end")
	}
	text, err := os.ReadFile(l.said)
	check(l.s.T, err)
	var said struct {
		Jobs []struct {
			JobName     string
			Error       int
			Read, Write struct {
				Total int `json:"total_ios"`
			}
		}
	}
	_, report, _ := bytes.Cut(text, []byte("\n{"))
	check(l.s.T, json.Unmarshal(append([]byte("{"), report...), &said))
	if len(said.Jobs) != 2 || said.Jobs[0].Error != 0 || said.Jobs[1].Error != 0 || said.Jobs[0].Read.Total == 0 || said.Jobs[1].Write.Total == 0 {
		l.s.Errorf("the load: %+v\n%s", said, text)
	}
	l.s.phase(fmt.Sprintf("%d reads verified, %d writes", said.Jobs[0].Read.Total, said.Jobs[1].Write.Total))
}

// staleWriter knows the address of one node only and goes on writing to it, whatever it is answered. It is on that node's side of
// every partition.
type staleWriter struct {
	taken time.Time // when another node had acknowledged a write
	stop  context.CancelFunc
	tried chan struct{}
	group sync.WaitGroup
	late  time.Time // when the newest acknowledged write began
}

// startStale returns when some of its writes have been acknowledged.
func (s *nfsFailover) startStale(at *local.Server) *staleWriter {
	s.Helper()
	dir := s.mount(tool.NewMachine(), at.Host, "vers=3,nolock,soft,timeo=20,retrans=1,noac,lookupcache=none")
	ctx, stop := context.WithCancel(s.Context())
	c := &staleWriter{stop: stop, tried: make(chan struct{})}
	s.Cleanup(func() { c.end() })
	acknowledged := make(chan struct{}, 1)
	c.group.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			began := time.Now()
			if err := store(filepath.Join(dir, fmt.Sprintf("stale-%s-%d", at.Name, i))); err == nil {
				c.late = began
				select {
				case acknowledged <- struct{}{}:
				default:
				}
			}
			select {
			case c.tried <- struct{}{}:
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond): // nobody counts
			}
		}
	})
	for range 3 {
		select {
		case <-acknowledged:
		case <-time.After(time.Minute):
			s.Fatalf("%s acknowledges no writes", at.Name)
		}
	}
	s.phase("a client of " + at.Name + " alone")
	return c
}

func store(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_SYNC, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString("x")
	return errors.Join(err, file.Close())
}

// flow waits for so many attempts that begin after the call, and the one in progress.
func (c *staleWriter) flow(attempts int) {
	for range attempts + 1 {
		<-c.tried
	}
}

// end stops the client and returns when the newest write began that was acknowledged.
func (c *staleWriter) end() time.Time {
	c.stop()
	c.group.Wait()
	return c.late
}
