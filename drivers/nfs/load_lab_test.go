//go:build lab

package nfs_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/deploy/lab/netlab"
	"github.com/cairn-storage/cairn/drivers/nfs/nfstest"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// fioTime bounds one run of fio. The lab's processor is emulated.
const fioTime = 5 * time.Minute

// fio writes blocks past the client's cache, each with its own checksum, and reads them back.
func fio(dir string, more ...string) []string {
	return append([]string{
		"--name=load", "--directory=" + dir, "--ioengine=psync", "--direct=1", "--rw=randwrite", "--bs=16k", "--size=1m",
		"--numjobs=2", "--fallocate=none", "--verify=crc32c", "--verify_fatal=1", "--thread",
	}, more...)
}

// verifiedLoad holds every block that was written over NFS against its checksum: by the client that wrote it, and by another
// that has cached nothing. A client that loses its rule in the middle of a load writes no more.
func verifiedLoad(l *lab) {
	root := l.zpool("loaded")
	for _, version := range []string{"3", "4.2"} {
		l.Run("v"+version, func(t *testing.T) { (&lab{t, l.net}).load(root, version) })
	}
}

func (l *lab) load(root, version string) {
	e := l.exporter(l.config(anyone{}))
	writer, reader := l.net.Nodes[0], l.net.Nodes[1]
	spec := l.spec(root, rule("10.77.0.0/24", cairn.AccessRW))
	at := l.export(e, spec)[0]
	mounted := make(map[*netlab.Node]string)
	for _, node := range []*netlab.Node{writer, reader} {
		dir, err := nfstest.New(l.T, node, version, options(version)...).Mount(l.Context(), at)
		l.ok(err)
		mounted[node] = dir
	}
	for _, run := range []struct {
		node *netlab.Node
		args []string
	}{
		{writer, fio(mounted[writer], "--do_verify=1")},
		{reader, fio(mounted[reader], "--verify_only=1")},
	} {
		ctx, cancel := context.WithTimeout(l.Context(), fioTime)
		_, err := run.node.Run(ctx, tool.Cmd{Name: "fio", Args: run.args})
		cancel()
		l.ok(err)
	}

	var said bytes.Buffer
	endless, err := writer.Start(tool.Spec{
		Name: "fio", Args: fio(mounted[writer], "--filename=endless", "--time_based", "--runtime=1h"), Stdout: &said, Stderr: &said, OwnGroup: true,
	})
	l.ok(err)
	defer func() { l.ok(endless.Kill()) }()
	nfstest.Eventually(l.T, "the load has written", func() bool {
		info, err := os.Stat(filepath.Join(root, "endless"))
		return err == nil && info.Size() > 0
	})
	spec.Rules = []cairn.AccessRule{rule(reader.IPv4.String(), cairn.AccessRO)}
	l.export(e, spec)
	select {
	case <-endless.Done():
	case <-time.After(fioTime):
		l.Fatal("a client whose rule is gone goes on")
	}
	if err := endless.Wait(); err == nil || !strings.Contains(said.String(), "Permission denied") && !strings.Contains(said.String(), "Stale file handle") {
		l.Errorf("the load of a client whose rule is gone: %v; want that it was refused:\n%s", err, &said)
	}
	l.unexport(e, spec.ID)
	l.must("sh", "-c", "rm "+filepath.Join(root, "load.*")+" "+filepath.Join(root, "endless"))
}
