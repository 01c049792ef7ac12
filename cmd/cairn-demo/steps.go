package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

func (d *demo) form(ctx context.Context) (string, error) {
	var err error
	d.cluster, err = local.New(local.Config{Dir: d.dir, Executable: d.binary})
	if err != nil {
		return "", err
	}
	if err := d.cluster.Start(ctx, 3); err != nil {
		return "", err
	}
	leader, err := d.cluster.Leader(ctx)
	if err != nil {
		return "", err
	}
	var pids []string
	for _, s := range d.cluster.Servers() {
		pids = append(pids, fmt.Sprintf("%s on %s (process %d)", s.Name, s.Address(), s.Pid()))
	}
	return strings.Join(pids, ", ") + "\n" + leader.Name + " leads", nil
}

func (d *demo) makeShare(ctx context.Context) (string, error) {
	const gib = int64(1) << 30
	size := (2*d.source.bytes/gib + 1) * gib // what the damage adds has to fit, too
	var share cairnv1.Share
	if err := d.cairn(ctx, &share, "share", "create", shareName, "--size", cairn.FormatSize(size)); err != nil {
		return "", err
	}
	var access cairnv1.AllowAccessResponse
	if err := d.cairn(ctx, &access, "access", "allow", shareName, "user", userName, "rw"); err != nil {
		return "", err
	}
	url, err := location(share.GetLocations())
	if err != nil {
		return "", err
	}
	if d.files, err = d.dial(url, access.GetPassword().GetPassword(), d.parallel); err != nil {
		return "", err
	}
	stranger, err := d.dial(url, "guess", 1)
	if err != nil {
		return "", err
	}
	defer stranger.Close()
	if _, err := stranger.List(ctx); dav.StatusOf(err) != http.StatusUnauthorized {
		return "", fmt.Errorf("a wrong password was not refused: %w", orNil(err))
	}
	return fmt.Sprintf("%s on %s; a password of %d characters was shown once, a wrong one is refused",
		cairn.FormatSize(share.GetSize()), place(&share), len(access.GetPassword().GetPassword())), nil
}

// orNil makes something printable of an error that should have been there.
func orNil(err error) error {
	if err == nil {
		return errors.New("the request succeeded")
	}
	return err
}

// location is where clients are to go first.
func location(all []*cairnv1.ExportLocation) (string, error) {
	for _, l := range all {
		if l.GetPreferred() {
			return l.GetUrl(), nil
		}
	}
	return "", errors.New("it has no location where clients could reach it")
}

func place(share *cairnv1.Share) string {
	if len(share.GetReplicas()) == 0 {
		return "no node"
	}
	replica := share.GetReplicas()[0]
	return replica.GetNode() + "/" + replica.GetPool()
}

// host is the server that serves the share.
func (d *demo) host(ctx context.Context) (*local.Server, error) {
	var share cairnv1.Share
	if err := d.cairn(ctx, &share, "share", "show", shareName); err != nil {
		return nil, err
	}
	if len(share.GetReplicas()) != 1 {
		return nil, fmt.Errorf("share %s: has %d replicas, want 1", shareName, len(share.GetReplicas()))
	}
	return d.cluster.Server(share.GetReplicas()[0].GetNode()), nil
}

func (d *demo) upload(ctx context.Context) (string, error) {
	began := time.Now()
	var err error
	if d.original, d.bytes, err = upload(ctx, d.files, d.source, d.parallel); err != nil {
		return "", err
	}
	took := time.Since(began)
	d.current = manifest{}
	for name, sum := range d.original {
		d.current[name] = sum
	}
	return fmt.Sprintf("%d files, %s, in %s (%.0f files/s), each on disk before it was acknowledged\nsha256 of all: %s",
		len(d.original), cairn.FormatSize(d.bytes), round(took), float64(len(d.original))/took.Seconds(), d.original.digest()), nil
}

// held is what a server logs when it has held writers to cut a snapshot.
var held = regexp.MustCompile(`writers were held.* frozen=(\S+)`)

func (d *demo) snapshot(ctx context.Context) (string, error) {
	if err := d.cairn(ctx, nil, "snapshot", "create", shareName, snapshotName); err != nil {
		return "", err
	}
	host, err := d.host(ctx)
	if err != nil {
		return "", err
	}
	log, err := os.ReadFile(host.Log)
	if err != nil {
		return "", fmt.Errorf("log of %s: %w", host.Name, err)
	}
	found := held.FindSubmatch(log)
	if found == nil {
		return "", fmt.Errorf("log of %s: does not say how long writers were held", host.Name)
	}
	return fmt.Sprintf("writers were held for %s, readers never (from %s)", found[1], d.relative(host.Log)), nil
}

func (d *demo) readDamaged(ctx context.Context) (string, error) {
	got, _, bytes, err := download(ctx, d.files, d.parallel)
	if err != nil {
		return "", err
	}
	if err := d.current.compare(got).err(); err != nil {
		return "", err
	}
	if got.digest() == d.original.digest() {
		return "", errors.New("mismatch: the files are as they were uploaded, and should be damaged")
	}
	return fmt.Sprintf("%d files, %s\nsha256 of all: %s, was %s: %s",
		len(got), cairn.FormatSize(bytes), got.digest(), d.original.digest(), d.original.compare(got)), nil
}

// revert begins the story of the other share, which may kill its server when this one is served again.
func (d *demo) revert(ctx context.Context) (string, error) {
	host, err := d.host(ctx)
	if err != nil {
		return "", err
	}
	ready := make(chan struct{})
	d.beside = startTakeover(ctx, d.cluster, host, ready)
	if err := d.cairn(ctx, nil, "share", "revert", shareName, snapshotName, "--yes"); err != nil {
		return "", err
	}
	if err := d.cluster.AwaitServed(ctx, shareName); err != nil {
		return "", err
	}
	close(ready)
	return "the share is served again", nil
}

func (d *demo) readReverted(ctx context.Context) (string, error) { return d.readOriginal(ctx, d.files) }

// readOriginal reads everything and demands what was uploaded: the same names, directories and bytes, no more and no less.
func (d *demo) readOriginal(ctx context.Context, files *dav.Client) (string, error) {
	got, dirs, bytes, err := download(ctx, files, d.parallel)
	if err != nil {
		return "", err
	}
	if err := d.original.compare(got).err(); err != nil {
		return "", err
	}
	for _, dir := range d.source.dirs {
		if !dirs[dir] {
			return "", fmt.Errorf("mismatch: directory %q is missing", dir)
		}
	}
	if len(dirs) != len(d.source.dirs) || bytes != d.bytes || got.digest() != d.original.digest() {
		return "", fmt.Errorf("mismatch: %d directories, %d bytes, sha256 %s; want %d, %d, %s",
			len(dirs), bytes, got.digest(), len(d.source.dirs), d.bytes, d.original.digest())
	}
	return fmt.Sprintf("%d files, %d directories, %s, all the same\nsha256 of all: %s", len(got), len(dirs), cairn.FormatSize(bytes), got.digest()), nil
}

func (d *demo) readSnapshot(ctx context.Context) (string, error) {
	var access cairnv1.AllowAccessResponse
	if err := d.cairn(ctx, &access, "snapshot", "allow", shareName, snapshotName, "user", userName); err != nil {
		return "", err
	}
	var snapshot cairnv1.Snapshot
	if err := d.cairn(ctx, &snapshot, "snapshot", "show", shareName, snapshotName); err != nil {
		return "", err
	}
	url, err := location(snapshot.GetLocations())
	if err != nil {
		return "", err
	}
	files, err := d.dial(url, access.GetPassword().GetPassword(), d.parallel)
	if err != nil {
		return "", err
	}
	defer files.Close()
	if err := files.Put(ctx, "new", strings.NewReader("x"), 1); dav.StatusOf(err) != http.StatusForbidden {
		return "", fmt.Errorf("a write into a snapshot was not refused: %w", orNil(err))
	}
	done, err := d.readOriginal(ctx, files)
	return done + "\na write is refused", err
}

// restart has the killed server catch up while everything is read.
func (d *demo) restart(ctx context.Context) (string, error) {
	if err := d.failover.Old.Start(); err != nil {
		return "", err
	}
	var state local.State
	var read string
	group, both := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		if err = d.cluster.AwaitUp(both, d.failover.Old); err == nil {
			state, err = d.cluster.Agree(both)
		}
		return err
	})
	group.Go(func() (err error) {
		read, err = d.readDamaged(both)
		return err
	})
	if err := group.Wait(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s\nall three have digest %s at entry %d", read, state.Digest, state.Index), nil
}

func (d *demo) tellTakeover(context.Context) (string, error) {
	done, err := d.beside.join()
	if done != "" {
		d.printf("%s", "      "+done)
	}
	return "the share is as its clients were told", err
}

func (d *demo) remove(ctx context.Context) (string, error) {
	for _, command := range [][]string{
		{"snapshot", "delete", shareName, snapshotName},
		{"share", "delete", shareName, "--yes"},
	} {
		if err := d.cairn(ctx, nil, command...); err != nil {
			return "", err
		}
	}
	d.beside.out = d.out // it is over, and speaks for itself from here on
	if err := d.beside.remove(ctx); err != nil {
		return "", err
	}
	if err := d.cluster.AwaitEmptyPools(ctx); err != nil {
		return "", err
	}
	state, err := d.cluster.Agree(ctx)
	return fmt.Sprintf("all three have digest %s at entry %d", state.Digest, state.Index), err
}
