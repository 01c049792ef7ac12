package systemtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// life is what a running cluster does: restarts, shares, files, snapshots, what was there before Cairn, and with more than one
// server replicas, promotions and failovers.
type life struct {
	*cluster
	points *points
	docs   share
	number int // of the run
	// What was acknowledged: files of docs with their content, and shares that are there or gone.
	files map[string]string
	there map[string]bool
}

func newLife(t *testing.T, p *points, servers int) *life {
	t.Helper()
	c := prepareWith(t, local.Config{Executable: failpointBinary})
	c.check(c.Start(t.Context(), servers))
	l := &life{cluster: c, points: p, files: map[string]string{}, there: map[string]bool{"docs": true}}
	l.docs = l.makeShare("docs", "1GiB")
	if servers > 1 {
		l.must(nil, "type", "create", "copies", "--spec", "replication_type=dr", "--spec", "failover=auto", "--spec", "snapshot_support=true",
			"--spec", "revert_to_snapshot_support=true", "--spec", "cairn:replication_interval=300ms")
	}
	return l
}

func (l *life) run(ctx context.Context) error {
	l.number++
	parts := []func(context.Context) error{l.restart, l.useFiles, l.useShares, l.useForeign}
	if len(l.Servers()) > 1 {
		parts = append(parts, l.useCopies)
	}
	for _, part := range parts {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// name is that of a share of this run.
func (l *life) name(what string) string { return fmt.Sprintf("%s-%d", what, l.number) }

// do runs the command line, and reads its JSON if there is an answer to put it into.
func (l *life) do(ctx context.Context, answer proto.Message, args ...string) error {
	if answer != nil {
		args = append(args, "-o", "json")
	}
	stdout, err := l.RunAt(ctx, nil, args...)
	if err != nil || answer == nil {
		return err
	}
	return (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(stdout, answer)
}

// all runs commands, one after the other.
func (l *life) all(ctx context.Context, commands ...string) error {
	for _, command := range commands {
		if err := l.do(ctx, nil, strings.Fields(command)...); err != nil {
			return err
		}
	}
	return nil
}

// make creates a share, with access for everybody here, and returns where it is.
func (l *life) make(ctx context.Context, name string, args ...string) (*cairnv1.Share, error) {
	var made cairnv1.Share
	if err := l.do(ctx, &made, append([]string{"share", "create", name, "--size", "16MiB"}, args...)...); err != nil {
		return nil, err
	}
	l.there[name] = true
	return &made, l.all(ctx, "access allow "+name+" ip 127.0.0.0/8 rw")
}

func (l *life) remove(ctx context.Context, name string) error {
	delete(l.there, name) // from now on nobody knows
	err := l.do(ctx, nil, "share", "delete", name, "--yes")
	if err == nil {
		l.there[name] = false
	}
	return err
}

// restart ends every server as an operator would, and starts it again. The first one to start is another one every time.
func (l *life) restart(ctx context.Context) error {
	for _, s := range l.Servers() {
		if err := s.Stop(ctx); err != nil {
			return err
		}
	}
	for i := range l.Servers() {
		if err := l.Servers()[(l.number+i)%len(l.Servers())].Start(); err != nil {
			return err
		}
	}
	for _, s := range l.Servers() {
		if err := l.AwaitUp(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// useFiles changes files in every way that there is. Those that are to last are in docs.
func (l *life) useFiles(ctx context.Context) error {
	name := l.name("file")
	content := strings.Repeat(name+" ", 500)
	if err := l.docs.files.Put(ctx, name, strings.NewReader(content), int64(len(content))); err != nil {
		return err
	}
	l.files[name] = content
	made, err := l.make(ctx, l.name("files"))
	if err != nil {
		return err
	}
	w, err := l.web(made.GetLocations()[0].GetUrl())
	if err != nil {
		return err
	}
	defer w.http.CloseIdleConnections()
	for _, step := range [][]string{
		{"MKCOL", "d"}, {"PUT", "d/file"}, {"PUT", "file"}, {"PUT", "file"}, {"LOCK", "locked"},
		{"COPY", "file", "copied"}, {"COPY", "d", "e"}, {"COPY", "d", "e"}, {"MOVE", "file", "moved"}, {"MOVE", "d", "e"}, {"DELETE", "e"},
	} {
		if err := w.do(ctx, step[0], step[1], step[2:]...); err != nil {
			return err
		}
	}
	return l.remove(ctx, made.GetName())
}

// useShares resizes, snapshots, clones and reverts.
func (l *life) useShares(ctx context.Context) error {
	name, clone := l.name("share"), l.name("clone")
	made, err := l.make(ctx, name)
	if err != nil {
		return err
	}
	if err := l.fill(ctx, made, "first"); err != nil {
		return err
	}
	if err := l.all(ctx, "share extend "+name+" 32MiB", "share shrink "+name+" 16MiB", "snapshot create "+name+" s"); err != nil {
		return err
	}
	if _, err := l.make(ctx, clone, "--from-snapshot", name+"/s"); err != nil {
		return err
	}
	if err := l.all(ctx, "share revert "+name+" s --yes"); err != nil {
		return err
	}
	if err := l.remove(ctx, clone); err != nil {
		return err
	}
	if err := l.all(ctx, "snapshot delete "+name+" s"); err != nil {
		return err
	}
	return l.remove(ctx, name)
}

// fill puts files into a share.
func (l *life) fill(ctx context.Context, made *cairnv1.Share, names ...string) error {
	w, err := l.web(made.GetLocations()[0].GetUrl())
	if err != nil {
		return err
	}
	defer w.http.CloseIdleConnections()
	for _, name := range names {
		if err := w.do(ctx, "PUT", name); err != nil {
			return err
		}
	}
	return nil
}

// useForeign manages a directory with everything in it that a directory can hold, copies it, and lets go of it.
func (l *life) useForeign(ctx context.Context) error {
	name := l.name("foreign")
	home := l.Servers()[0]
	if err := plantForeign(filepath.Join(home.PoolDir(), name)); err != nil {
		return err
	}
	manage := []string{"share", "manage", name, "--pool", home.Name + "/data", "--object", name, "--size", "16MiB"}
	copies := len(l.Servers()) > 1
	if copies {
		manage = append(manage, "--type", "copies")
	}
	var managed cairnv1.Share
	if err := l.do(ctx, &managed, manage...); err != nil {
		return err
	}
	if err := l.all(ctx, "access allow "+name+" ip 127.0.0.0/8 rw", "snapshot create "+name+" s"); err != nil {
		return err
	}
	if copies {
		if err := l.copyForeign(ctx, name, &managed); err != nil {
			return err
		}
	}
	if err := l.all(ctx, "snapshot delete "+name+" s", "share unmanage "+name); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(home.PoolDir(), name))
}

func (l *life) copyForeign(ctx context.Context, name string, managed *cairnv1.Share) error {
	if err := l.all(ctx, "replica add "+name); err != nil {
		return err
	}
	s := &copied{cluster: l.cluster, name: name}
	if err := l.inSync(ctx, s); err != nil {
		return err
	}
	if err := l.fill(ctx, managed, "next"); err != nil {
		return err
	}
	if err := l.inSync(ctx, s); err != nil { // and the second stream is there as well
		return err
	}
	share, err := s.show(ctx)
	if err != nil {
		return err
	}
	for _, r := range share.GetReplicas() {
		if r.GetState() != "active" {
			if err := l.all(ctx, "replica remove "+name+" "+r.GetId()); err != nil {
				return err
			}
		}
	}
	return nil
}

// plantForeign makes a directory with links, something that is no file, and a directory that its owner must not write.
func plantForeign(dir string) error {
	return errors.Join(
		os.MkdirAll(filepath.Join(dir, "closed"), 0o755),
		os.WriteFile(filepath.Join(dir, "closed", "file"), []byte("inside"), 0o600),
		os.WriteFile(filepath.Join(dir, "file"), []byte("one inode"), 0o600),
		os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "same")),
		os.Symlink("file", filepath.Join(dir, "symbolic")),
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600),
		os.Chmod(filepath.Join(dir, "closed"), 0o500),
	)
}

// useCopies replicates a share, moves it as planned, and kills the server of its active replica.
func (l *life) useCopies(ctx context.Context) error {
	s := &copied{cluster: l.cluster, name: l.name("copied")}
	made, err := l.make(ctx, s.name, "--type", "copies", "--replicas", "2")
	if err != nil {
		return err
	}
	if err := l.inSync(ctx, s); err != nil {
		return err
	}
	if err := l.fill(ctx, made, "one", "two"); err != nil {
		return err
	}
	if err := l.all(ctx, "snapshot create "+s.name+" s"); err != nil {
		return err
	}
	if err := l.inSync(ctx, s); err != nil {
		return err
	}
	if err := l.all(ctx, "snapshot delete "+s.name+" s", "share promote "+s.name); err != nil {
		return err
	}
	if err := l.inSync(ctx, s); err != nil {
		return err
	}
	share, err := s.show(ctx)
	if err != nil {
		return err
	}
	old := l.Server(share.GetReplicas()[0].GetNode())
	if err := old.Kill(); err != nil {
		return err
	}
	if err := local.Await(ctx, "a failover of "+s.name, func(ctx context.Context) (bool, error) {
		now, err := s.show(ctx)
		return len(now.GetReplicas()) > 0 && now.GetReplicas()[0].GetNode() != old.Name && len(now.GetLocations()) > 0, err
	}); err != nil {
		return err
	}
	if err := errors.Join(old.Start(), l.AwaitUp(ctx, old)); err != nil {
		return err
	}
	if err := l.inSync(ctx, s); err != nil {
		return err
	}
	return l.remove(ctx, s.name)
}

// inSync waits until the standbys of a share lack nothing of what was written before.
func (l *life) inSync(ctx context.Context, s *copied) error {
	began := time.Now()
	return local.Await(ctx, "standbys of "+s.name+" in sync", func(ctx context.Context) (bool, error) {
		api, err := s.API()
		if err != nil {
			return false, err
		}
		answer, err := api.Replicas().ListReplicas(ctx, &cairnv1.ListReplicasRequest{Share: s.name})
		for _, r := range answer.GetReplicas() {
			state, lag := r.GetReplica().GetState(), time.Duration(r.GetLagMs())*time.Millisecond
			if state == "out_of_sync" || state == "in_sync" && (lag < 0 || lag > time.Since(began) || r.GetLagBytes() != 0) {
				return false, fmt.Errorf("%v", r)
			}
		}
		return len(answer.GetReplicas()) > 1, err
	})
}

func (l *life) check() {
	l.t.Helper()
	began := time.Now()
	l.points.revive(l.cluster)
	l.await(convergence, "order after the kill", l.wholeNow)
	if took := time.Since(began); took > convergence/3 {
		l.t.Logf("all in order after %s", took.Round(time.Millisecond))
	}
	for name, content := range l.files {
		if got, err := read(l.t.Context(), l.docs.files, name); err != nil || string(got) != content {
			l.t.Errorf("%s was acknowledged and now reads %d bytes (%v), want %d", name, len(got), err, len(content))
		}
	}
	l.agree()
	l.sweep()
}

// sweep compares the shares with what was acknowledged, and removes what a run that was cut off has left.
func (l *life) sweep() {
	l.t.Helper()
	ctx := l.t.Context()
	api, err := l.API(l.Servers()[0])
	l.cluster.check(err)
	shares, err := api.Shares().ListShares(ctx, &cairnv1.ListSharesRequest{Project: "*"})
	l.cluster.check(err)
	found := map[string]bool{}
	for _, s := range shares.GetShares() {
		found[s.GetName()] = true
	}
	for name, there := range l.there {
		if found[name] != there {
			l.t.Errorf("share %s: is there: %t, and was acknowledged: %t", name, found[name], there)
		}
	}
	snapshots, err := api.Snapshots().ListSnapshots(ctx, &cairnv1.ListSnapshotsRequest{Project: "*"})
	l.cluster.check(err)
	for _, s := range snapshots.GetSnapshots() {
		l.cluster.check(l.all(ctx, "snapshot delete "+s.GetShareName()+" "+s.GetName()))
	}
	for name := range found {
		if name != "docs" {
			l.cluster.check(l.remove(ctx, name))
		}
	}
	l.there = map[string]bool{"docs": true}
	left, err := filepath.Glob(filepath.Join(l.Servers()[0].PoolDir(), "foreign-*"))
	l.cluster.check(err)
	for _, dir := range left {
		l.cluster.check(os.RemoveAll(dir))
	}
}

// wholeNow is inOrder for shares with any number of replicas: every share and snapshot is healthy, every replica settled and in
// sync, and the pools hold what the state has there, besides sync points, and what the test has put there itself.
func (c *cluster) wholeNow(ctx context.Context) (bool, error) {
	api, err := c.API(c.Servers()[0])
	if err != nil {
		return false, err
	}
	shares, err := api.Shares().ListShares(ctx, &cairnv1.ListSharesRequest{Project: "*"})
	if err != nil {
		return false, err
	}
	snapshots, err := api.Snapshots().ListSnapshots(ctx, &cairnv1.ListSnapshotsRequest{Project: "*"})
	if err != nil {
		return false, err
	}
	want, diverged := map[string][]string{}, map[string]bool{}
	replicas := map[string][]*cairnv1.Replica{} // by share
	for _, s := range shares.GetShares() {
		if s.GetManilaStatus() != "available" || s.GetFault() != nil {
			return false, fmt.Errorf("share %s is %s (%v)", s.GetName(), s.GetManilaStatus(), s.GetFault())
		}
		replicas[s.GetId()] = s.GetReplicas()
		for _, r := range s.GetReplicas() {
			if !r.GetSettled() || r.GetFault() != nil || r.GetState() == "out_of_sync" {
				return false, fmt.Errorf("share %s: replica on %s is %s, settled %t (%v)", s.GetName(), r.GetNode(), r.GetState(), r.GetSettled(), r.GetFault())
			}
			want[r.GetNode()] = append(want[r.GetNode()], r.GetId())
		}
	}
	for _, s := range snapshots.GetSnapshots() {
		if s.GetStatus() != "available" || s.GetFault() != nil {
			return false, fmt.Errorf("snapshot %s/%s is %s (%v)", s.GetShareName(), s.GetName(), s.GetStatus(), s.GetFault())
		}
		if diverged[s.GetId()] = s.GetDiverged(); s.GetDiverged() {
			continue // on the replica that was active once
		}
		for _, r := range replicas[s.GetShare()] {
			want[r.GetNode()] = append(want[r.GetNode()], path.Join(r.GetId(), "snapshots", s.GetId()))
		}
	}
	for _, s := range c.Servers() {
		got, err := s.Everything()
		if err != nil {
			return false, err
		}
		got = slices.DeleteFunc(got, func(name string) bool {
			last := path.Base(name)
			return diverged[last] || strings.HasPrefix(last, "sync-") && path.Base(path.Dir(name)) == "snapshots" || strings.HasPrefix(name, "foreign-")
		})
		slices.Sort(want[s.Name])
		if !slices.Equal(got, want[s.Name]) {
			return false, fmt.Errorf("the pool of %s holds\n  %v\nand the state has there\n  %v", s.Name, got, want[s.Name])
		}
	}
	state, err := c.Agree(ctx)
	return state.Index > 0, err
}

// web speaks WebDAV, also the methods that package dav has no use for.
type web struct {
	http *http.Client
	base string
}

func (c *cluster) web(url string) (*web, error) {
	ca, err := c.CA()
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &web{&http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}, Timeout: 20 * time.Second,
	}, url}, nil
}

// lockInfo asks for a lock; on a name that does not exist that makes an empty file.
const lockInfo = `<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>`

func (w *web) do(ctx context.Context, method, name string, to ...string) error {
	body := ""
	switch method {
	case "PUT":
		body = strings.Repeat(name, 3000)
	case "LOCK":
		body = lockInfo
	}
	request, err := http.NewRequestWithContext(ctx, method, w.base+name, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	if len(to) > 0 {
		request.Header.Set("Destination", w.base+to[0])
		request.Header.Set("Overwrite", "T")
	}
	response, err := w.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return &dav.StatusError{Method: method, Path: name, Status: response.StatusCode}
	}
	return nil
}
