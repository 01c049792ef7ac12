//go:build lab

package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// TestLabNFSFailover has real servers fail over a share on ZFS, served by the kernel, while a client has it mounted by its
// service address: hard, with files open that it goes on writing, by NFS 4.2 and by NFS 3. First the node that serves it dies, with the
// kernel's server; then the next one is cut off from the others while the client still reaches it.
func TestLabNFSFailover(t *testing.T) {
	k := startKernelNFS(t)
	w := k.startWorkload()
	defer w.end()
	w.failsOver(loss{"kill", k.dies, func(*local.Server) {}, k.boots})
	w.failsOver(loss{"partition", k.isolated, k.fenced, func(*local.Server) { k.net.Heal() }})
}

// failovers of the test. With each the load may lose the block that it was about to read back.
const failovers = 2

// workload is what the client does with the share all the time.
type workload struct {
	*kernelNFS
	recorders []*recorder
	fio       *tool.Process
	said      bytes.Buffer
	unmount   []func()
}

func (k *kernelNFS) startWorkload() *workload {
	k.t.Helper()
	w := &workload{kernelNFS: k}
	for _, mount := range []struct{ version, options string }{{"3", "hard,nolock"}, {"4.2", "hard"}} {
		dir, unmount := k.mount(serviceAddress, "vers="+mount.version, mount.options)
		w.unmount = append(w.unmount, unmount)
		w.recorders = append(w.recorders, startRecorder(k.t, filepath.Join(dir, "records-"+mount.version), false))
	}
	w.startLoad(w.dir())
	w.step("the client writes")
	return w
}

// dir is where the share is mounted by NFS 4.2.
func (w *workload) dir() string { return filepath.Dir(w.recorders[len(w.recorders)-1].file.Name()) }

// fioArgs writes blocks past the client's cache, each with its own checksum.
func fioArgs(dir, name string, more ...string) []string {
	return append([]string{
		"--name=" + name, "--directory=" + dir, "--ioengine=psync", "--direct=1", "--rw=randwrite", "--bs=16k", "--size=256k",
		"--fallocate=none", "--verify=crc32c", "--thread", "--output-format=json",
	}, more...)
}

// startLoad has fio write blocks without end, and read each one back right after it has been acknowledged. One that was
// acknowledged by a server that then was lost, and is read from the next one, may be missing: that is no error to stop at.
func (w *workload) startLoad(dir string) {
	w.t.Helper()
	var err error
	w.fio, err = w.client.Start(tool.Spec{
		Name: "fio", Args: fioArgs(dir, "load", "--verify_backlog=1", "--rate_iops=1", "--continue_on_error=verify", "--time_based", "--runtime=1h"),
		Stdout: &w.said, Stderr: &w.said, OwnGroup: true,
	})
	w.check(err)
}

// end ends it all. No call of the client has failed.
func (w *workload) end() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), labPatience)
	defer cancel()
	_, err := w.client.Run(ctx, tool.Cmd{Name: "pkill", Args: []string{"-INT", "-x", "fio"}})
	if err != nil {
		w.t.Errorf("fio has ended: %v", err)
	}
	for _, r := range w.recorders {
		if !w.t.Failed() {
			r.end()
		}
	}
	select {
	case <-w.fio.Done():
		w.checkLoad()
	case <-ctx.Done():
		w.t.Error("fio does not end")
	}
	for _, unmount := range w.unmount {
		unmount()
	}
	w.check(w.fio.Kill())
}

func (w *workload) checkLoad() {
	w.t.Helper()
	var report struct {
		Jobs []struct {
			Total int `json:"total_err"`
			First int `json:"first_error"`
			Read  struct {
				TotalIOs int `json:"total_ios"`
			}
			Write struct {
				TotalIOs int `json:"total_ios"`
			}
		}
	}
	text := w.said.Bytes()
	if at := bytes.IndexByte(text, '{'); at >= 0 {
		text = text[at:]
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&report); err != nil || len(report.Jobs) != 1 {
		w.t.Errorf("fio: %v in %s", err, text)
		return
	}
	job := report.Jobs[0]
	w.t.Logf("fio: %d writes, %d read back, %d of them lost with their server", job.Write.TotalIOs, job.Read.TotalIOs, job.Total)
	if job.Read.TotalIOs == 0 || job.Total > failovers || job.Total > 0 && syscall.Errno(job.First) != syscall.EILSEQ {
		w.t.Errorf("fio: one block a failover may be lost, and no call may fail: %s", text)
	}
}

// loss is a way to take the node away that serves the share, and to give it back.
type loss struct {
	name  string
	begin func(old *local.Server)
	away  func(old *local.Server) // what is to be seen of it when another node serves
	end   func(old *local.Server)
}

// failsOver loses the node that serves the share.
func (w *workload) failsOver(how loss) {
	w.t.Helper()
	old := w.host()
	dir, unmount := w.mount(old.Host, "vers=3", "soft", "nolock", "timeo=20", "retrans=1")
	defer unmount()
	stale := startRecorder(w.t, filepath.Join(dir, "stale-"+how.name), true)
	stale.flow(1)
	synced := w.flow(1) // the last ones that the standby certainly has
	w.caughtUp()
	w.flow(2) // which it may lack
	began, begun := time.Now(), w.next()
	how.begin(old)
	w.awaitAway(old)
	w.step("the share is elsewhere")
	after := w.next()
	w.flow(2)
	taken := time.Now()
	w.t.Logf("%s: %s to the client's next write", how.name, taken.Sub(began).Round(100*time.Millisecond))
	how.away(old)
	w.loadGoesOn()
	w.verifies("after-" + how.name)
	w.step("fio goes on, and verifies")
	how.end(old)
	w.check(w.AwaitUp(w.t.Context(), old))
	w.step(old.Name + " is back")
	w.awaitSync(2)
	w.caughtUp()
	w.standsBy(old)
	w.step("in sync")
	if late := stale.end(); late.After(taken) {
		w.t.Errorf("%s: %s acknowledged a write that began %s after another server had acknowledged one", how.name, old.Name, late.Sub(taken))
	}
	w.checkRecords(how.name, old, synced, begun, after)
}

// flow waits until every recorder has so many more records acknowledged, and returns the last ones.
func (w *workload) flow(records int) (last []int) {
	w.t.Helper()
	for _, r := range w.recorders {
		last = append(last, r.flow(records))
	}
	return last
}

// next is the first record of each recorder that has not begun.
func (w *workload) next() (next []int) {
	for _, r := range w.recorders {
		next = append(next, r.next())
	}
	return next
}

// loadGoesOn waits until the load has written to where the share is now.
func (w *workload) loadGoesOn() {
	w.t.Helper()
	began := time.Now()
	pattern := filepath.Join("/"+zpoolOf(w.host().Name), "cairn", "*", "load.0.0")
	w.await(time.Minute, "fio to write", func(context.Context) (bool, error) {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) != 1 {
			return false, fmt.Errorf("%s: %v (%w)", pattern, found, err)
		}
		info, err := os.Stat(found[0])
		return err == nil && info.ModTime().After(began), err
	})
}

// verifies writes a file with a checksum in each block, and reads it.
func (w *workload) verifies(name string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), labPatience)
	defer cancel()
	_, err := w.client.Run(ctx, tool.Cmd{Name: "fio", Args: fioArgs(w.dir(), name, "--do_verify=1", "--verify_fatal=1")})
	w.check(err)
}

// checkRecords reads what the recorders have written, as a client that has cached nothing: what was synced is there, and what was
// written after the failover. What is missing is kept at the old node.
func (w *workload) checkRecords(what string, old *local.Server, synced, begun, after []int) {
	w.t.Helper()
	dir, unmount := w.mount(serviceAddress, "vers=4.2")
	defer unmount()
	left := 0
	for i, r := range w.recorders {
		end := r.flow(1) + 1
		content := w.client.Must("cat", filepath.Join(dir, r.name())) + "\n" // which Must takes off
		if missing := r.missing([]byte(content), 0, synced[i]+1); len(missing) > 0 {
			w.t.Errorf("%s: %s: synced, and missing: %v", what, r.name(), missing)
		}
		if missing := r.missing([]byte(content), after[i], end); len(missing) > 0 {
			w.t.Errorf("%s: %s: written after the failover, and missing: %v", what, r.name(), missing)
		}
		missing := r.missing([]byte(content), synced[i]+1, after[i])
		w.t.Logf("%s: %s: of %d records %v are missing", what, r.name(), end, missing)
		left += len(r.missing([]byte(content), synced[i]+1, begun[i]))
	}
	diverged, err := w.diverged(w.t.Context())
	w.check(err)
	kept := 0
	for _, d := range diverged {
		w.t.Log(d)
		kept++
	}
	if left > 0 && kept == 0 {
		w.t.Errorf("%s: %d acknowledged records are missing, and %s has kept nothing", what, left, old.Name)
	}
}
