package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// soakTime is how long a cluster is watched; CAIRN_BENCH_SOAK says so, such as 1h. Without it nothing is.
func soakTime(b *testing.B) time.Duration {
	text := os.Getenv("CAIRN_BENCH_SOAK")
	if text == "" {
		b.Skip("takes as long as CAIRN_BENCH_SOAK says, such as 1h")
	}
	long, err := time.ParseDuration(text)
	if err != nil {
		b.Fatalf("CAIRN_BENCH_SOAK: %v", err)
	}
	return long
}

const (
	soakSamples = 60
	soakFile    = 64 << 10 // bytes, of each write
	soakFiles   = 100      // that are written over and over
	// soakFill is how many changes are made before anything is measured: then the log, the journal of events and the memory of
	// requests, which are bounded by less, are as long as they get, and what still grows grows without an end.
	soakFill    = 150_000
	soakFillers = 64 // clients that make them
)

// fill makes soakFill changes.
func (s *replicated) fill(ctx context.Context, api *client.Client) {
	s.b.Helper()
	var left atomic.Int64
	left.Store(soakFill)
	filling, ctx := errgroup.WithContext(ctx)
	for range soakFillers {
		filling.Go(func() error {
			for n := left.Add(-1); n >= 0; n = left.Add(-1) {
				_, err := api.Shares().UpdateShare(ctx, &cairnv1.UpdateShareRequest{Share: "bench", SetMetadata: map[string]string{"n": strconv.FormatInt(n, 10)}})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	s.check(filling.Wait())
}

// sizes are what must not grow while nothing but the same work is done again and again.
type sizes struct{ memory, descriptors, goroutines, state float64 }

// anonymous is the memory of a process without pages of files, such as the log's, which the kernel takes back when it needs them.
func anonymous(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(status), "\nRssAnon:")
	if !found {
		return 0, fmt.Errorf("status of process %d: no RssAnon", pid)
	}
	var kib float64
	_, err = fmt.Sscanf(rest, "%f kB", &kib)
	return kib * 1024, err
}

// sizesOf asks a server and its kernel, and takes the bytes of its data directory, which has the log.
func (s *replicated) sizesOf(ctx context.Context, web *http.Client, server *local.Server) (now sizes) {
	s.b.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+server.HTTPAddress()+"/metrics", nil)
	s.check(err)
	answer, err := web.Do(request)
	s.check(err)
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		value, _ := strconv.ParseFloat(text, 64)
		switch name {
		case "process_open_fds":
			now.descriptors = value
		case "go_goroutines":
			now.goroutines = value
		}
	}
	s.check(lines.Err())
	now.memory, err = anonymous(server.Pid())
	s.check(err)
	s.check(filepath.WalkDir(server.DataDir(), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			now.state += float64(info.Size())
		}
		return err
	}))
	return now
}

// work writes files, and makes and removes a share, until ctx ends. Every failure is one that a client saw.
func (s *replicated) work(ctx context.Context, api *client.Client, files *dav.Client) (done, failed int) {
	data := bytes.Repeat([]byte{0x5a}, soakFile)
	for n := 0; ctx.Err() == nil; n++ {
		errs := []error{files.Put(ctx, fmt.Sprint("file-", n%soakFiles), bytes.NewReader(data), soakFile)}
		if n%10 == 0 {
			name := fmt.Sprint("soak-", n)
			_, err := api.Shares().CreateShare(ctx, &cairnv1.CreateShareRequest{Name: name, Size: 1 << 20, Type: "copies"})
			errs = append(errs, err)
			_, err = api.Shares().DeleteShare(ctx, &cairnv1.DeleteShareRequest{Share: name})
			errs = append(errs, err)
		}
		for _, err := range errs {
			switch {
			case err == nil:
				done++
			case ctx.Err() == nil:
				failed++
				s.b.Log(err)
			}
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return done, failed
}

// busy starts so many processes that do nothing but compute, until the benchmark ends.
func busy(b *testing.B, processes int) {
	b.Helper()
	for range processes {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
}

// soak watches three servers that do the same work again and again: what grows, and whether the leader changes. CAIRN_BENCH_BUSY is how
// many busy processes there are beside them for each processor.
func (r *report) soak(b *testing.B) {
	long := soakTime(b)
	beside, _ := strconv.Atoi(os.Getenv("CAIRN_BENCH_BUSY"))
	s := newReplicated(b)
	active, _ := s.inSync()
	ca, err := s.CA()
	s.check(err)
	share, err := s.api(active).Shares().GetShare(b.Context(), &cairnv1.GetShareRequest{Share: "bench"})
	s.check(err)
	files, err := dav.New(dav.Config{URL: share.GetShare().GetLocations()[0].GetUrl(), CA: ca, User: "bench", Password: s.password, Connections: 1})
	s.check(err)
	defer files.Close()
	s.fill(b.Context(), s.api(active))
	before, err := s.Status(b.Context(), active)
	s.check(err)
	busy(b, beside*runtime.NumCPU())
	ctx, cancel := context.WithTimeout(b.Context(), long)
	defer cancel()
	var done, failed int
	var working sync.WaitGroup
	api := s.api(active)
	working.Go(func() { done, failed = s.work(ctx, api, files) })
	all := s.watch(ctx, long/soakSamples)
	working.Wait()
	after, err := s.Status(b.Context(), active)
	s.check(err)
	title := fmt.Sprintf("%v of %d operations beside %d busy processes on %d CPUs: ", long, done, beside*runtime.NumCPU(), runtime.NumCPU())
	elections := after.GetTerm() - before.GetTerm()
	r.result(row{what: title + "elections, failed operations", value: fmt.Sprintf("%d, %d", elections, failed), target: "none", met: elections+uint64(failed) == 0})
	for _, what := range []struct {
		name  string
		value func(sizes) float64
	}{
		{"memory of three servers, MiB", func(s sizes) float64 { return s.memory / (1 << 20) }}, {"descriptors", func(s sizes) float64 { return s.descriptors }},
		{"goroutines", func(s sizes) float64 { return s.goroutines }}, {"state and log on disk, MiB", func(s sizes) float64 { return s.state / (1 << 20) }},
	} {
		r.result(row{what: "  " + what.name + ", in the second sixth, and in the last one", value: fmt.Sprintf("%.1f, %.1f", sixth(all, 1, what.value), sixth(all, 5, what.value))})
	}
	once(b, map[string]float64{"elections": float64(elections), "failed": float64(failed)})
}

// watch takes samples, each of all servers together.
func (s *replicated) watch(ctx context.Context, every time.Duration) (all []sizes) {
	web := s.web()
	defer web.CloseIdleConnections()
	for {
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return all
		}
		var sum sizes
		for _, server := range s.Servers() {
			now := s.sizesOf(s.b.Context(), web, server)
			sum.memory, sum.descriptors, sum.goroutines, sum.state = sum.memory+now.memory, sum.descriptors+now.descriptors, sum.goroutines+now.goroutines, sum.state+now.state
		}
		all = append(all, sum)
	}
}

// sixth is the mean of a part of the samples.
func sixth(all []sizes, part int, value func(sizes) float64) (mean float64) {
	some := all[part*len(all)/6 : (part+1)*len(all)/6]
	for _, one := range some {
		mean += value(one) / float64(len(some))
	}
	return mean
}
