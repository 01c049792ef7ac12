package scenarios

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/chaos/model"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// entrance is a place where clients may reach the share whose rules were changed.
type entrance struct {
	name, url string
	readOnly  bool // nobody may write there, whatever was granted
}

// probe tries what clients at each address can do: through every node, and at every standby, if those are read.
func (r *run) probe(ctx context.Context, f *model.Final) error {
	rules, err := r.world.API.Access().ListAccess(ctx, &cairnv1.ListAccessRequest{Target: &cairnv1.AccessTarget{Share: r.traffic.Rules()}})
	if err != nil {
		return err
	}
	entrances, err := r.entrances(ctx)
	if err != nil {
		return err
	}
	granted := map[string]string{}
	for _, rule := range rules.GetRules() {
		granted[strings.TrimSuffix(rule.GetWho(), "/32")] = rule.GetLevel()
	}
	for _, source := range r.traffic.Sources() {
		for _, e := range entrances {
			p := model.Probe{Share: "rules, " + e.name, Who: source, Granted: granted[source]}
			if e.readOnly && p.Granted != "" {
				p.Granted = "ro"
			}
			err := local.Await(ctx, fmt.Sprintf("an answer to %s, %s", source, e.name), func(ctx context.Context) (_ bool, err error) {
				p.Read, p.Write, err = r.try(ctx, e.url, source) // a node that is late for its lease refuses everybody
				return err == nil, err
			})
			if err != nil {
				return fmt.Errorf("probe: %w", err)
			}
			f.Probes = append(f.Probes, p)
		}
	}
	return nil
}

func (r *run) entrances(ctx context.Context) ([]entrance, error) {
	var all []entrance
	for _, server := range r.world.Cluster.Servers() {
		all = append(all, entrance{name: "through " + server.Name, url: "https://" + server.HTTPAddress() + "/shares/" + r.traffic.Rules()})
	}
	answer, err := r.world.API.Shares().GetShare(ctx, &cairnv1.GetShareRequest{Share: r.traffic.Rules()})
	for _, replica := range answer.GetShare().GetReplicas() {
		for _, location := range replica.GetLocations() {
			all = append(all, entrance{name: "the standby on " + replica.GetNode(), url: location.GetUrl(), readOnly: true})
		}
	}
	return all, err
}

func (r *run) try(ctx context.Context, url, source string) (read, write bool, err error) {
	files, err := dav.New(dav.Config{URL: url, CA: r.api.CA, Timeout: 20 * time.Second, Source: netip.MustParseAddr(source)})
	if err != nil {
		return false, false, err
	}
	defer files.Close()
	_, err = files.List(ctx)
	if read, err = allowed(err); err != nil {
		return read, false, err
	}
	err = files.Put(ctx, "probe", strings.NewReader("x"), 1)
	write, err = allowed(err)
	return read, write, err
}

// allowed tells a refusal from an error.
func allowed(err error) (bool, error) {
	switch dav.StatusOf(err) {
	case http.StatusForbidden, http.StatusUnauthorized:
		return false, nil
	}
	return err == nil, err
}
