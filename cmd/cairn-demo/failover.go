package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
)

// enoughTraffic is how many operations on the share have to be seen before and after the kill.
const enoughTraffic = 200

// killLeader kills the leader under traffic. The traffic must not notice: not one request may fail.
func (d *demo) killLeader(ctx context.Context) (string, error) {
	if err := d.freeLeader(ctx); err != nil {
		return "", err
	}
	t, err := startTraffic(ctx, d.files, d.current, "traffic")
	if err != nil {
		return "", err
	}
	t.flow(enoughTraffic)
	d.failover, err = d.cluster.KillLeader(ctx, shareName)
	if err == nil {
		t.flow(enoughTraffic)
	}
	if failed := t.end(); err == nil {
		err = failed
	}
	if err != nil {
		return "", err
	}
	maps.Copy(d.current, t.written)
	return fmt.Sprintf("process of %s killed; %s had the first committed write after %s (%d attempts before)\nthe share meanwhile: %d reads and %d writes, none failed, the slowest took %s",
		d.failover.Old.Name, d.failover.New.Name, round(d.failover.Took), d.failover.Attempts, t.reads, t.writes, round(t.slowest)), nil
}

// freeLeader moves the leadership away from the server that serves the share: a share with one replica lives and dies with
// its server, and this is about the metadata.
func (d *demo) freeLeader(ctx context.Context) error {
	host, err := d.host(ctx)
	if err != nil {
		return err
	}
	leader, err := d.cluster.Leader(ctx)
	if err != nil || leader != host {
		return err
	}
	d.printf("        %s leads and serves the share, so the leadership moves first", host.Name)
	for _, other := range d.cluster.Servers() {
		if other != host {
			return d.cairn(ctx, nil, "cluster", "leader", "transfer", other.Name)
		}
	}
	return errors.New("there is no other server")
}
