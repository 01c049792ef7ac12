package node

import (
	"context"
	"net"
	"net/http"
	"net/netip"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/actors/replica"
	"github.com/cairn-storage/cairn/cluster"
	"github.com/cairn-storage/cairn/drivers/nfs/compound"
	"github.com/cairn-storage/cairn/drivers/webdav"
	"github.com/cairn-storage/cairn/rpc/server"
)

// newDriller tries out standbys of this node. Its client comes over the network, as others do. Over WebDAV it is without a
// certificate of its own: the password has to do. Over NFS it asks whether the server lets it as far as the directory, from the
// addresses that the server is reached at.
func newDriller(config Config, member *cluster.Node, actor *replica.Actor, copies *replicator, wake func(actors.Key)) *replica.Driller {
	id := member.Identity()
	secure := id.ClientConfig("http/1.1", id.Node)
	secure.Certificates, secure.GetClientCertificate = nil, nil
	files := &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: explainTimeout}).DialContext, TLSClientConfig: secure, DisableKeepAlives: true,
	}}
	clients := map[cairn.Protocol]replica.DrillClient{cairn.ProtocolWebDAV: {
		Reach: func(ctx context.Context, url, user, password string) error {
			return webdav.Reach(ctx, files, url, user, password)
		},
	}}
	if config.NFS != nil {
		addresses, _ := config.NFS.serviceAddresses(config.advertised(config.Listen)) // the exporter was made with them
		clients[cairn.ProtocolNFS] = replica.DrillClient{From: texts(addresses), Reach: func(ctx context.Context, url, _, _ string) error {
			return compound.Reach(ctx, url)
		}}
	}
	return &replica.Driller{Actor: actor, Source: copies.client.Content, Wake: wake, Clients: clients}
}

func texts(addresses []netip.Addr) (texts []string) {
	for _, address := range addresses {
		texts = append(texts, address.String())
	}
	return texts
}

// Drill implements server.Replication.
func (s *standbys) Drill(ctx context.Context, node cairn.NodeID, standby cairn.ReplicaID) (server.Drill, error) {
	drill, err := s.client.Drill(ctx, node, standby)
	if err != nil {
		return server.Drill{}, err
	}
	content := func(c replica.Content) server.Content {
		return server.Content{SHA256: c.SHA256[:], Files: c.Files, Bytes: c.Bytes}
	}
	return server.Drill{
		Snapshot: drill.Snapshot, Cloned: drill.Cloned, Exported: drill.Exported, Answered: drill.Answered,
		Lag: drill.Lag, Behind: drill.Behind, Content: content(drill.Content), Source: content(drill.Source),
	}, nil
}
