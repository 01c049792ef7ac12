package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// TestDrill tries out a failover beside a client that writes. Then the standby's server is killed in the middle of a drill, and
// then the active replica's: no clone stays, and the next drill is as good as the first.
func TestDrill(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	s := c.makeCopiedBy("manual", "300ms", "docs", "1GiB", 2)
	files, err := s.files(t.Context())
	c.check(err)
	defer files.Close()
	content := bytes.Repeat([]byte("some content "), 1<<20)
	for n := range 8 {
		c.check(files.Put(t.Context(), fmt.Sprint("file-", n), bytes.NewReader(content), int64(len(content))))
	}
	s.follow()
	s.drill(8, int64(8*len(content)))

	active, standby := s.ends()
	for _, victim := range []*local.Server{standby, active} {
		ended := make(chan outcome, 1)
		go func() {
			ended <- s.cliAt([]*local.Server{s.third(active, standby)}, "drill", "docs", "--timeout", "20s")
		}()
		s.await(20*time.Second, "a clone", func(context.Context) (bool, error) { return len(s.clones(standby)) > 0, nil })
		s.check(victim.Kill())
		if o := <-ended; o.code == 0 {
			t.Logf("the drill was over before %s was killed", victim.Name)
		} else if strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("%s: exit %d: %s", o.command, o.code, o.stderr)
		}
		s.check(victim.Start())
		s.await(30*time.Second, "the clone gone", func(context.Context) (bool, error) { return len(s.clones(standby)) == 0, nil })
		s.awaitSync(2)
		s.follow()
		s.drill(8, int64(8*len(content)))
	}
	s.damaged(standby)
	s.check(standby.Kill())
	s.await(20*time.Second, "a refusal", func(context.Context) (bool, error) {
		o := s.cliAt([]*local.Server{active}, "drill", "docs")
		if o.code != 5 || !strings.Contains(o.stderr, "no replica is in sync") {
			return false, fmt.Errorf("exit %d: %s", o.code, o.stderr)
		}
		return true, nil
	})
}

// ends are the servers of the active replica and of its standby.
func (s *copied) ends() (active, standby *local.Server) {
	s.t.Helper()
	share, err := s.show(s.t.Context())
	s.check(err)
	for _, r := range share.GetReplicas() {
		if r.GetState() == "active" {
			active = s.Server(r.GetNode())
		} else {
			standby = s.Server(r.GetNode())
		}
	}
	return active, standby
}

// drill runs one that has to find so many files with so many bytes, and to leave nothing.
func (s *copied) drill(files, size int64) {
	s.t.Helper()
	var d cairnv1.DrillShareResponse
	s.must(&d, "drill", "share/docs")
	if !d.GetIdentical() || d.GetFiles() != files || d.GetBytes() != size || d.GetRtoMs() <= 0 || d.GetRpoMs() < 0 {
		s.t.Errorf("drill: %v", &d)
	}
	_, standby := s.ends()
	if left := s.clones(standby); len(left) > 0 {
		s.t.Errorf("left on %s: %v", standby.Name, left)
	}
	s.t.Logf("drill of %d MiB: clone %d ms, export %d ms, RTO %d ms, RPO %d ms", size>>20, d.GetCloneMs(), d.GetExportMs(), d.GetRtoMs(), d.GetRpoMs())
}

// clones lists what drills have on a server's pool, half made or whole.
func (s *copied) clones(server *local.Server) (found []string) {
	s.t.Helper()
	objects, err := server.Objects()
	s.check(err)
	for _, object := range objects {
		if strings.HasPrefix(filepath.Base(object), "drill-") {
			found = append(found, object)
		}
	}
	return found
}

// damaged changes a byte of the standby's snapshots behind Cairn's back: a drill must fail, and still clean up.
func (s *copied) damaged(standby *local.Server) {
	s.t.Helper()
	changed, err := filepath.Glob(filepath.Join(standby.PoolDir(), "*", "snapshots", "*", "file-3"))
	s.check(err)
	for _, name := range changed {
		file, err := os.OpenFile(name, os.O_WRONLY, 0)
		s.check(err)
		_, err = file.WriteAt([]byte("S"), 0)
		s.check(err)
		s.check(file.Close())
	}
	o := s.cli("drill", "docs")
	if o.code != 1 || !strings.Contains(o.stdout, "DIFFERS") || !strings.Contains(o.stderr, "does not hold what") {
		s.t.Errorf("%d files damaged: exit %d: %s%s", len(changed), o.code, o.stdout, o.stderr)
	}
	if left := s.clones(standby); len(left) > 0 {
		s.t.Errorf("left: %v", left)
	}
}
