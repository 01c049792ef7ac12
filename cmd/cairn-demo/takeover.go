package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/rpc/client"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// The replicated share, and its type. Standbys follow every second, so that the demonstration does not take longer.
const (
	copiedShare = "journal"
	copiedType  = "copied"
	copiedSpecs = "replication_type=dr failover=auto snapshot_support=true mount_snapshot_support=true cairn:replication_interval=1s"
)

const (
	// recordsBefore and recordsAfter are how many records have to be acknowledged before the kill, and after it.
	recordsBefore = 100
	recordsAfter  = 50
	// nobodyElse is for how long after a kill certainly nobody else can have taken over: the lease is longer.
	nobodyElse = time.Second
	// leastLag is how far the standby is behind at the kill: the demonstration chooses a bad moment.
	leastLag = 300 * time.Millisecond
	// takeoverTimeout is when a share that nobody takes over counts as broken.
	takeoverTimeout = 45 * time.Second
)

// takeover is a share with two replicas, from its creation until what its active one's server took with it is found again.
type takeover struct {
	stage
	told  bytes.Buffer    // what is shown when it is over
	keep  *local.Server   // must stay: it serves the other share
	ready <-chan struct{} // closed when a server may be killed

	password string
	victim   *local.Server
	killed   time.Time
	acks     []time.Time

	took     time.Duration // from the kill to the first record that was acknowledged elsewhere
	window   time.Duration // of writes that stay behind, as the failover showed it
	lost     loss
	diverged string // snapshot

	err  error
	done chan struct{}
}

// startTakeover goes on beside other steps; what it shows comes with join.
func startTakeover(ctx context.Context, cluster *local.Cluster, keep *local.Server, ready <-chan struct{}) *takeover {
	t := &takeover{keep: keep, ready: ready, done: make(chan struct{})}
	t.stage = stage{&t.told, cluster}
	go func() {
		defer close(t.done)
		t.err = t.run(ctx)
	}()
	return t
}

// join waits for the end and returns what there is to show.
func (t *takeover) join() (string, error) {
	<-t.done
	return strings.TrimSpace(t.told.String()), t.err
}

func (t *takeover) run(ctx context.Context) error {
	for _, part := range []func(context.Context) error{t.create, t.choose, t.kill, t.check, t.comeBack, t.readBack} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (t *takeover) create(ctx context.Context) error {
	newType := []string{"type", "create", copiedType}
	for spec := range strings.FieldsSeq(copiedSpecs) {
		newType = append(newType, "--spec", spec)
	}
	if err := t.cairn(ctx, nil, newType...); err != nil {
		return err
	}
	if err := t.cairn(ctx, nil, "share", "create", copiedShare, "--size", "1GiB", "--type", copiedType, "--replicas", "2"); err != nil {
		return err
	}
	var access cairnv1.AllowAccessResponse
	if err := t.cairn(ctx, &access, "access", "allow", copiedShare, "user", userName, "rw"); err != nil {
		return err
	}
	t.password = access.GetPassword().GetPassword()
	return t.awaitSync(ctx)
}

// choose picks the server to kill: that of the active replica. It must neither serve the other share nor lead; that part was shown.
func (t *takeover) choose(ctx context.Context) error {
	share, err := t.show(ctx)
	if err != nil {
		return err
	}
	if share.GetReplicas()[0].GetNode() == t.keep.Name {
		if err := t.cairn(ctx, nil, "share", "promote", copiedShare); err != nil {
			return err
		}
		if share, err = t.show(ctx); err != nil {
			return err
		}
	}
	t.victim = t.cluster.Server(share.GetReplicas()[0].GetNode())
	leader, err := t.cluster.Leader(ctx)
	if err != nil || leader != t.victim {
		return err
	}
	return t.cairn(ctx, nil, "cluster", "leader", "transfer", t.keep.Name)
}

// kill has records written, kills the server that has the active replica, and waits until they are acknowledged again. The writer
// knows the URL of another server, and notices nothing but one request that takes longer.
func (t *takeover) kill(ctx context.Context) error {
	select {
	case <-t.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, takeoverTimeout)
	defer cancel()
	files, err := t.door(ctx)
	if err != nil {
		return err
	}
	defer files.Close()
	journal := startJournal(ctx, files)
	defer journal.end()
	if _, err := journal.await(ctx, recordsBefore, time.Time{}); err != nil {
		return err
	}
	if err := t.awaitLag(ctx); err != nil {
		return err
	}
	t.killed = time.Now()
	if err := t.victim.Kill(); err != nil {
		return err
	}
	first, err := journal.await(ctx, recordsAfter, t.killed.Add(nobodyElse))
	if err != nil {
		return fmt.Errorf("nobody took over from %s: %w", t.victim.Name, err)
	}
	t.took = first.Sub(t.killed)
	t.acks = journal.end()
	t.printf("        process of %s, which has the active replica, killed; the next record was acknowledged after %s, by the same URL, which is that of %s",
		t.victim.Name, round(t.took), t.keep.Name)
	return nil
}

// check reads what has survived, and demands that the failover has said how much may be missing.
func (t *takeover) check(ctx context.Context) error {
	down, err := t.announced(ctx)
	if err != nil {
		return err
	}
	files, err := t.door(ctx)
	if err != nil {
		return err
	}
	defer files.Close()
	survived, err := readRecords(ctx, files)
	if err != nil {
		return err
	}
	if t.lost, err = compareRecords(t.acks, t.killed.Add(nobodyElse), down.Add(-t.window), func(n int) bool { return survived[n] }); err != nil {
		return err
	}
	t.printf("        the failover says that up to %s of writes stay behind", t.window)
	if len(t.lost.records) == 0 {
		t.printf("        %d records acknowledged, none lost", len(t.acks))
		return nil
	}
	t.printf("        %d records acknowledged; the %d last ones before the kill are missing, the first of them %s old at the kill: within that window",
		len(t.acks), len(t.lost.records), round(t.killed.Sub(t.lost.earliest)))
	return nil
}

// stayBehind is what the event of a failover says about the loss.
var stayBehind = regexp.MustCompile(`up to (\S+) of writes stay behind`)

// announced finds the window that the failover has shown, and when the victim was declared down, where the window ends.
func (t *takeover) announced(ctx context.Context) (down time.Time, err error) {
	api, err := t.api()
	if err != nil {
		return down, err
	}
	answer, err := api.Events().ListEvents(ctx, &cairnv1.ListEventsRequest{Project: "*", Since: t.killed.Format(time.RFC3339)})
	if err != nil {
		return down, err
	}
	for _, event := range answer.GetEvents() {
		switch {
		case event.GetKind() == "node.down" && event.GetResource() == "node/"+t.victim.Name:
			if down, err = time.Parse(time.RFC3339Nano, event.GetAt()); err != nil {
				return down, fmt.Errorf("event %d: %w", event.GetSeq(), err)
			}
		case event.GetKind() == "share.failover":
			found := stayBehind.FindStringSubmatch(event.GetMessage())
			if found == nil || down.IsZero() {
				return down, fmt.Errorf("event %d: does not say what stays behind, or comes before the node was down: %s", event.GetSeq(), event.GetMessage())
			}
			if t.window, err = time.ParseDuration(found[1]); err != nil {
				return down, fmt.Errorf("event %d: %w", event.GetSeq(), err)
			}
			return down, nil
		}
	}
	return down, errors.New("there is no event that tells of the failover")
}

// readRecords reads everything in the share. A record that is there with another text is an error.
func readRecords(ctx context.Context, files *dav.Client) (map[int]bool, error) {
	list, err := files.List(ctx)
	if err != nil {
		return nil, err
	}
	records := map[int]bool{}
	for name := range list.Files {
		var n int
		if _, err := fmt.Sscanf(name, "record-%06d", &n); err != nil || recordName(n) != name {
			return nil, fmt.Errorf("mismatch: %q is no record", name)
		}
		got, _, err := downloadFile(ctx, files, name)
		if err != nil {
			return nil, err
		}
		if got != sumOf(recordText(n)) {
			return nil, fmt.Errorf("mismatch: %q has another content", name)
		}
		records[n] = true
	}
	return records, nil
}

// comeBack starts the killed server. What only it has is kept before it follows.
func (t *takeover) comeBack(ctx context.Context) error {
	if err := t.victim.Start(); err != nil {
		return err
	}
	if err := t.cluster.AwaitUp(ctx, t.victim); err != nil {
		return err
	}
	if err := t.awaitSync(ctx); err != nil {
		return err
	}
	t.printf("        %s is back and follows", t.victim.Name)
	if len(t.lost.records) == 0 {
		return nil
	}
	if err := t.cairn(ctx, nil, "replica", "list", copiedShare, "--diverged"); err != nil {
		return err
	}
	answer, err := t.replicas(ctx)
	if err != nil {
		return err
	}
	if len(answer.GetDiverged()) != 1 {
		return fmt.Errorf("%d diverged snapshots are listed, want 1", len(answer.GetDiverged()))
	}
	t.diverged = answer.GetDiverged()[0].GetName()
	return nil
}

// readBack reads every lost record from what the killed server has kept.
func (t *takeover) readBack(ctx context.Context) error {
	if t.diverged == "" {
		return nil
	}
	var access cairnv1.AllowAccessResponse
	if err := t.cairn(ctx, &access, "snapshot", "allow", copiedShare, t.diverged, "user", userName); err != nil {
		return err
	}
	var snapshot cairnv1.Snapshot
	if err := t.cairn(ctx, &snapshot, "snapshot", "show", copiedShare, t.diverged); err != nil {
		return err
	}
	url, err := location(snapshot.GetLocations())
	if err != nil {
		return err
	}
	files, err := t.dial(url, access.GetPassword().GetPassword(), 1)
	if err != nil {
		return err
	}
	defer files.Close()
	kept, err := readRecords(ctx, files)
	if err != nil {
		return err
	}
	for n, at := range t.acks {
		if at.Before(t.killed) && !kept[n] {
			return fmt.Errorf("mismatch: record %d, which %s has acknowledged, is not in %s", n, t.victim.Name, t.diverged)
		}
	}
	t.printf("        read from %s on %s: all %d lost records, and the %d before them", t.diverged, t.victim.Name, len(t.lost.records), t.lost.records[0])
	return nil
}

// remove deletes the share with everything that belongs to it.
func (t *takeover) remove(ctx context.Context) error {
	if t.diverged != "" {
		if err := t.cairn(ctx, nil, "snapshot", "delete", copiedShare, t.diverged); err != nil {
			return err
		}
	}
	return t.cairn(ctx, nil, "share", "delete", copiedShare, "--yes")
}

// api asks the server that stays.
func (t *takeover) api() (*client.Client, error) { return t.cluster.API(t.keep) }

func (t *takeover) show(ctx context.Context) (*cairnv1.Share, error) {
	api, err := t.api()
	if err != nil {
		return nil, err
	}
	answer, err := api.Shares().GetShare(ctx, &cairnv1.GetShareRequest{Share: copiedShare})
	if err == nil && len(answer.GetShare().GetReplicas()) == 0 {
		err = fmt.Errorf("share %s: has no replica", copiedShare)
	}
	return answer.GetShare(), err
}

func (t *takeover) replicas(ctx context.Context) (*cairnv1.ListReplicasResponse, error) {
	api, err := t.api()
	if err != nil {
		return nil, err
	}
	return api.Replicas().ListReplicas(ctx, &cairnv1.ListReplicasRequest{Share: copiedShare})
}

// door is the share by the URL of a server that does not have its active replica.
func (t *takeover) door(ctx context.Context) (*dav.Client, error) {
	share, err := t.show(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range share.GetLocations() {
		if strings.Contains(l.GetUrl(), t.keep.HTTPAddress()) {
			return t.dial(l.GetUrl(), t.password, 1)
		}
	}
	return nil, fmt.Errorf("share %s: %s is not among its locations", copiedShare, t.keep.Name)
}

// awaitSync waits until both replicas are good.
func (t *takeover) awaitSync(ctx context.Context) error {
	return local.Await(ctx, "both replicas in sync", func(ctx context.Context) (bool, error) {
		answer, err := t.replicas(ctx)
		if err != nil {
			return false, err
		}
		for _, r := range answer.GetReplicas() {
			if r.GetReplica().GetState() == string(cairn.ReplicaOutOfSync) {
				return false, fmt.Errorf("the one on %s is out of sync (%s)", r.GetReplica().GetNode(), r.GetError())
			}
		}
		return len(answer.GetReplicas()) == 2, nil
	})
}

// awaitLag waits until the standby has followed, and is behind again.
func (t *takeover) awaitLag(ctx context.Context) error {
	began := time.Now()
	return local.Await(ctx, "the standby to follow, and to be behind again", func(ctx context.Context) (bool, error) {
		answer, err := t.replicas(ctx)
		if err != nil {
			return false, err
		}
		for _, r := range answer.GetReplicas() {
			if r.GetReplica().GetNode() != t.victim.Name {
				lag := time.Duration(r.GetLagMs()) * time.Millisecond
				return lag >= leastLag && time.Now().Add(-lag).After(began), nil
			}
		}
		return false, nil
	})
}
