package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/identity"
	"github.com/cairn-storage/cairn/cluster/identity/identitytest"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/webdav"
	"github.com/cairn-storage/cairn/fsm"
)

// patience is how long a condition may take on a machine that does much else.
const patience = 30 * time.Second

// rig is three nodes n1, n2, n3 with real certificates, HTTPS servers and exporters, and one state that all of them see. Share
// s1 has its active replica on n1 and a standby on n2; s2 has its only one on n1.
type rig struct {
	*testing.T
	machine *fsm.Machine
	founder *identity.Identity
	nodes   map[cairn.NodeID]*door

	mu    sync.Mutex
	index uint64
}

// door is one node.
type door struct {
	rig     *rig
	self    cairn.NodeID
	id      *identity.Identity
	files   *webdav.Exporter
	gateway *Gateway
	server  *http.Server
	address string

	mu sync.Mutex
	// local stands before the exporter; nil lets everything through.
	local func(w http.ResponseWriter, r *http.Request, files http.Handler)
}

// open is a guard that lets everything pass.
type open struct{}

func (open) Check(cairn.ReplicaID, uint64) error { return nil }

func newRig(t *testing.T, wait time.Duration) *rig {
	t.Helper()
	r := &rig{T: t, machine: fsm.New(), founder: identitytest.Found(t), nodes: make(map[cairn.NodeID]*door)}
	r.apply(&fsm.InitCluster{Cluster: r.founder.Cluster, Admin: cairn.User{Name: "admin", Role: cairn.UserAdmin}})
	r.apply(&fsm.CreateType{Type: cairn.ShareType{
		Name: "twin", Format: cairn.FormatFiles, Replication: cairn.ReplicationDR, Failover: cairn.FailoverAuto,
	}})
	for _, node := range []cairn.NodeID{"n1", "n2", "n3"} {
		r.nodes[node] = r.serve(node, wait)
	}
	r.share("s1", "n1", "n2")
	r.share("s2", "n1")
	return r
}

// serve starts a node and makes its rows.
func (r *rig) serve(node cairn.NodeID, wait time.Duration) *door {
	r.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	d := &door{rig: r, self: node, id: identitytest.Member(r, r.founder, node), address: listener.Addr().String()}
	logger := slog.New(slog.DiscardHandler)
	d.files = webdav.New(webdav.Config{BaseURL: "https://" + d.address, Guard: open{}, Logger: logger})
	d.gateway = New(Config{
		Self: node, State: r.machine, Local: d, Unchanged: webdav.Unchanged, Dial: d.dial, Roots: d.id.Roots(), Wait: wait, Logger: logger,
		Node: func(state tls.ConnectionState) (cairn.NodeID, error) {
			subject, err := identity.PeerOf(state)
			if err != nil {
				return "", err
			}
			return subject.Node()
		},
	})
	d.server = &http.Server{Handler: d.gateway, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug), TLSConfig: &tls.Config{
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: d.id.Roots(), Certificates: []tls.Certificate{*d.id.Credential()}, NextProtos: []string{"http/1.1"},
	}}
	ctx, cancel := context.WithCancel(r.Context())
	var running sync.WaitGroup
	running.Go(func() { d.gateway.Run(ctx) })
	running.Go(func() {
		if err := d.server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			r.Error(err)
		}
	})
	r.Cleanup(func() { cancel(); d.server.Close(); running.Wait() })
	token := cairn.TokenID(node)
	r.apply(&fsm.CreateJoinToken{Token: cairn.JoinToken{ID: token, Node: node, Name: string(node), SecretHash: make([]byte, 32), ExpiresAt: 2}})
	r.apply(&fsm.ConsumeJoinToken{ID: token, SecretHash: make([]byte, 32), KeyHash: make([]byte, 32)})
	r.apply(&fsm.RegisterNode{Node: cairn.Node{ID: node, Name: string(node), Address: "h:1", HTTPAddress: d.address, CommandVersion: fsm.CurrentVersion}})
	r.apply(&fsm.RegisterPools{Node: node, Pools: []cairn.Pool{{
		ID: cairn.MakePoolID(node, "p"), Node: node, Name: "p", Driver: "dir", Total: 1 << 50, OverSubscriptionPercent: 100,
		Capabilities: []cairn.Capability{cairn.CapReplicate}, Protocols: []cairn.Protocol{cairn.ProtocolWebDAV},
	}}})
	return d
}

// dial reaches other nodes as the server's own dialer does.
func (d *door) dial(ctx context.Context, node cairn.NodeID, address string) (net.Conn, error) {
	dialer := tls.Dialer{Config: d.id.ClientConfig("http/1.1", node)}
	return dialer.DialContext(ctx, "tcp", address)
}

// ServeHTTP is what the gateway takes for this node's exporter.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	local := d.local
	d.mu.Unlock()
	if local == nil {
		d.files.ServeHTTP(w, r)
		return
	}
	local(w, r, d.files)
}

// before has requests pass through local at this node.
func (d *door) before(local func(w http.ResponseWriter, r *http.Request, files http.Handler)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.local = local
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) apply(command fsm.Command) {
	r.Helper()
	data, err := fsm.Encode(fsm.Meta{At: 1}, command)
	r.must(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	result := r.machine.Apply(r.index, data)
	r.must(errors.Join(append(result.Each, result.Err)...))
}

func copyOf(share cairn.ShareID, node cairn.NodeID) cairn.ReplicaID {
	return cairn.ReplicaID(fmt.Sprintf("%s-%s", share, node))
}

// share makes a share with its replicas, the first one active and exported to everybody on 127.0.0.1.
func (r *rig) share(id cairn.ShareID, nodes ...cairn.NodeID) {
	r.Helper()
	command := &fsm.CreateShare{Share: cairn.Share{
		ID: id, Project: "p", Name: string(id), Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: "twin", Size: 1 << 30,
	}}
	for _, node := range nodes {
		command.Replicas = append(command.Replicas, fsm.Placement{ID: copyOf(id, node), Pool: cairn.MakePoolID(node, "p")})
	}
	r.apply(command)
	r.export(id, nodes[0], rule(cairn.AccessIP, "127.0.0.1"))
	for _, node := range nodes[1:] {
		r.report(id, node, func(h *cairn.ReplicaHave) { h.InSync = true })
	}
}

func rule(kind cairn.AccessKind, who string) cairn.AccessRule {
	return cairn.AccessRule{ID: "r", Kind: kind, Who: who, Level: cairn.AccessRW, State: cairn.RuleActive}
}

// export has a node serve its replica, and say so.
func (r *rig) export(id cairn.ShareID, node cairn.NodeID, rules ...cairn.AccessRule) {
	r.Helper()
	row := r.machine.View().Replica(copyOf(id, node))
	base := r.TempDir()
	spec := drivers.ExportSpec{
		ID: drivers.ExportID{Replica: row.ID}, Share: id, Epoch: row.Epoch, Size: 1 << 30, Rules: rules,
		Root: filepath.Join(base, "data"), Staging: filepath.Join(base, "staging"),
	}
	r.must(errors.Join(os.Mkdir(spec.Root, 0o700), os.Mkdir(spec.Staging, 0o700)))
	locations, err := r.nodes[node].files.Export(r.Context(), spec)
	r.must(err)
	r.report(id, node, func(h *cairn.ReplicaHave) { h.Locations = locations })
}

func (r *rig) report(id cairn.ShareID, node cairn.NodeID, edit func(*cairn.ReplicaHave)) {
	r.Helper()
	row := r.machine.View().Replica(copyOf(id, node))
	have := cairn.ReplicaHave{Presence: cairn.Present, Size: row.Want.Size}
	edit(&have)
	r.apply(&fsm.ReportReplica{Node: node, Replica: row.ID, Generation: row.Generation, Epoch: row.Epoch, Have: have})
}

// down commits that a node is down.
func (r *rig) down(node cairn.NodeID) { r.apply(&fsm.SetNodeState{Node: node, State: cairn.NodeDown}) }

// failOver makes the replica on n2 the active one of s1. It is not served before it is exported.
func (r *rig) failOver() {
	r.Helper()
	row := r.machine.View().Replica(copyOf("s1", "n1"))
	r.apply(&fsm.FailoverShares{Failovers: []fsm.Failover{{Share: "s1", Replica: copyOf("s1", "n2"), Epoch: row.Epoch, Snapshot: "point", Keep: "kept"}}})
}

// client reaches HTTPS servers from an address of the loopback network, with a certificate if one is given.
func (r *rig) client(from string, certificates ...tls.Certificate) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{
		DialContext: dialer.DialContext, DisableKeepAlives: true, // or it would repeat requests itself
		TLSClientConfig: &tls.Config{RootCAs: r.founder.Roots(), Certificates: certificates}, ExpectContinueTimeout: time.Second,
	}
	r.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// reply is an answer with all of its body.
type reply struct {
	status int
	header http.Header
	text   string
	err    error
}

// ask sends a request for a path in s1, or for a whole path.
func (d *door) ask(client *http.Client, method, path, body string, header ...string) reply {
	if !strings.HasPrefix(path, "/") {
		path = "/shares/s1/" + path
	}
	request, err := http.NewRequest(method, "https://"+d.address+path, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		return reply{err: err}
	}
	request.ContentLength = int64(len(body))
	if body == "" {
		request.Body = http.NoBody
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		return reply{err: err}
	}
	defer response.Body.Close()
	var text bytes.Buffer
	_, err = text.ReadFrom(response.Body)
	return reply{response.StatusCode, response.Header, text.String(), err}
}

// expect fails the test unless the answer has the status, and the text in it.
func (r *rig) expect(what string, got reply, status int, text string) {
	r.Helper()
	if got.err != nil || got.status != status || !strings.Contains(got.text, text) {
		r.Errorf("%s: %d %q (%v), want %d %q", what, got.status, got.text, got.err, status, text)
	}
}

// await waits for a condition.
func (r *rig) await(what string, holds func() bool) {
	r.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			r.Fatalf("waited in vain: %s", what)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-r.Context().Done():
			r.Fatal(r.Context().Err())
		}
	}
}
