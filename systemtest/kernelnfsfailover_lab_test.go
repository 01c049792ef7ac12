//go:build lab

package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/deploy/lab/netlab"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// TestLabNFSFailover has real servers fail over a share on ZFS, served by the kernel, while a client has it mounted by its
// service address: hard, with files open that it goes on writing, by NFS 4.2 and by NFS 3. First the node that serves it dies; then the next one is
// cut off from the others while the client still reaches it.
func TestLabNFSFailover(t *testing.T) {
	k := startKernelNFS(t)
	w := k.startWorkload()
	defer w.end()
	w.failsOver("dead", func(old *local.Server) {
		k.check(old.Kill())
		k.node(old).SetLink(netlab.Link{Down: true})
	}, func(old *local.Server) {
		k.node(old).SetLink(netlab.Link{})
		k.check(old.Start())
	})
	w.failsOver("cut off", func(old *local.Server) {
		for _, other := range k.others(old) {
			k.net.Cut(k.node(old), other)
			k.net.Cut(other, k.node(old))
		}
	}, func(*local.Server) { k.net.Heal() })
}

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
		Name: "fio", Args: fioArgs(dir, "load", "--verify_backlog=1", "--rate_iops=5", "--continue_on_error=verify", "--time_based", "--runtime=1h"),
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
			Error int `json:"error"`
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
	w.t.Logf("fio: %s", w.said.Bytes())
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&report); err != nil || len(report.Jobs) != 1 {
		w.t.Fatalf("fio: %v in %s", err, text)
	}
}

// failsOver takes the node away that serves the share, and gives it back.
func (w *workload) failsOver(what string, lose, back func(old *local.Server)) {
	w.t.Helper()
	old := w.host()
	dir, unmount := w.mount(old.Host, "vers=3", "soft", "nolock", "timeo=20", "retrans=1")
	defer unmount()
	stale := startRecorder(w.t, filepath.Join(dir, "stale-"+old.Name), true)
	stale.flow(1)
	var synced, lost, after []int // by recorder: what comes before was synced, was begun when the node was lost, or elsewhere
	for _, r := range w.recorders {
		synced = append(synced, r.flow(1))
	}
	w.caughtUp()
	for _, r := range w.recorders {
		lost = append(lost, r.next())
	}
	began := time.Now()
	lose(old)
	w.step(old.Name + " is " + what)
	w.awaitAway(old)
	w.step("the share is elsewhere")
	for _, r := range w.recorders {
		after = append(after, r.next())
	}
	for _, r := range w.recorders {
		r.flow(2)
		w.step(r.name() + " goes on")
	}
	taken := time.Now()
	w.t.Logf("%s %s to the client's next write: %s", old.Name, what, taken.Sub(began).Round(100*time.Millisecond))
	w.loadGoesOn()
	w.verifies("after-" + old.Name)
	w.step("fio goes on, and verifies")
	back(old)
	w.check(w.AwaitUp(w.t.Context(), old))
	w.step(old.Name + " is back")
	w.awaitSync(2)
	w.caughtUp()
	w.step("in sync")
	if late := stale.end(); late.After(taken) {
		w.t.Errorf("%s: %s acknowledged a write that began %s after another server had acknowledged one", what, old.Name, late.Sub(taken))
	}
	w.checkRecords(what, old, synced, lost, after)
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
func (w *workload) checkRecords(what string, old *local.Server, synced, lost, after []int) {
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
		left += len(r.missing([]byte(content), synced[i]+1, lost[i]))
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
