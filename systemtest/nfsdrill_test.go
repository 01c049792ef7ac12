package systemtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// drilled tries out a failover. The standby's Ganesha serves a clone to its own node, for as long as that takes.
func (s *fencedNFS) drilled() {
	s.t.Helper()
	s.record(3)
	s.follow()
	var d cairnv1.DrillShareResponse
	s.await(time.Minute, "a drill over NFS", func(context.Context) (bool, error) {
		o := s.cli("drill", "docs", "-o", "json")
		if o.code != 0 { // its Ganesha may have read the list of subvolumes before the clone was in it
			return false, errors.New(o.stderr)
		}
		return true, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(o.stdout), &d)
	})
	if !d.GetIdentical() || d.GetFiles() < int64(len(s.records)) || d.GetRtoMs() < d.GetExportMs() || d.GetExportMs() < d.GetCloneMs() || d.GetRpoMs() < 0 {
		s.t.Errorf("drill: %v", &d)
	}
	_, standby := s.ends()
	if left := s.clones(standby); len(left) > 0 {
		s.t.Errorf("left on %s: %v", standby.Name, left)
	}
	served, err := os.ReadFile(filepath.Join(standby.DataDir(), "ganesha", "ganesha.conf"))
	if err != nil || strings.Contains(string(served), "drill-") {
		s.t.Errorf("%s still serves a clone: %v\n%s", standby.Name, err, served)
	}
	s.t.Logf("drill over NFS: clone %d ms, export %d ms, RTO %d ms, RPO %d ms", d.GetCloneMs(), d.GetExportMs(), d.GetRtoMs(), d.GetRpoMs())
}
