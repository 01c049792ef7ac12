package traffic

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/nfs"
	"github.com/cairn-storage/cairn/drivers/webdav"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// Door is a way to the files of a share.
type Door interface {
	// Put writes a whole file. Without an error all of it is on disk, or the answer was a lie.
	Put(ctx context.Context, name string, content []byte) (By, error)
	Get(ctx context.Context, name string) ([]byte, error)
	List(ctx context.Context) ([]string, error)
	Close()
}

// By is who has committed a write, as the answer says: the zero By where it does not.
type By struct {
	Node  string
	Epoch uint64
}

const (
	// putTimeout is when a writer gives a record up: longer than a failover takes, so that some records wait for one.
	putTimeout = 8 * time.Second
	nfsPort    = "2049"
	// knockTimeout is when a client of NFS gives up a node, of which there is one that serves: a gate that is shut answers nothing.
	knockTimeout = time.Second
)

// webDoor leads through a node to a share over WebDAV.
type webDoor struct{ *dav.Client }

func (d webDoor) Put(ctx context.Context, name string, content []byte) (by By, err error) {
	header, err := d.PutHeader(ctx, name, bytes.NewReader(content), int64(len(content)))
	if err == nil {
		by.Node = header.Get(webdav.Replica)
		by.Epoch, _ = strconv.ParseUint(header.Get(webdav.Epoch), 10, 64) // 0 is a violation of its own
	}
	return by, err
}

func (d webDoor) Get(ctx context.Context, name string) ([]byte, error) {
	body, err := d.Client.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return content, nil
}

func (d webDoor) List(ctx context.Context) ([]string, error) {
	tree, err := d.Client.List(ctx)
	return slices.Sorted(maps.Keys(tree.Files)), err
}

// nfsDoor leads to a share over NFS. Its answers do not say who gave them.
type nfsDoor struct{ *nfs.Client }

func (d nfsDoor) Put(ctx context.Context, name string, content []byte) (By, error) {
	return By{}, d.Client.Put(ctx, name, content)
}

// Doors are the ways to a share that a client is told of: over WebDAV every node, over NFS the share's own address.
func (t *Traffic) Doors(ctx context.Context, share *Share) ([]Door, error) {
	if share.Protocol == cairn.ProtocolNFS {
		host, _, _ := strings.Cut(t.config.NFS.Service, "/")
		return []Door{t.nfsDoor(share, host, putTimeout)}, nil
	}
	nodes, err := t.API().Nodes().ListNodes(ctx, &cairnv1.ListNodesRequest{})
	if err != nil {
		return nil, fmt.Errorf("nodes: %w", err)
	}
	var doors []Door
	for _, node := range nodes.GetNodes() {
		files, err := dav.New(dav.Config{
			URL: "https://" + node.GetHttpAddress() + "/shares/" + share.ID, CA: t.config.API.CA, User: share.User, Password: share.Password, Connections: 2, Timeout: putTimeout,
		})
		if err != nil {
			return nil, err
		}
		doors = append(doors, webDoor{files})
	}
	t.doors = append(t.doors, doors...)
	return doors, nil
}

// sideDoors are those of a client of NFS that has heard of the nodes' own addresses, and tries them, whoever serves.
func (t *Traffic) sideDoors(share *Share) []Door {
	var doors []Door
	for _, host := range t.config.NFS.Nodes {
		doors = append(doors, t.nfsDoor(share, host, knockTimeout))
	}
	return doors
}

func (t *Traffic) nfsDoor(share *Share, host string, timeout time.Duration) Door {
	name := fmt.Sprintf("%s client %d", t.config.Prefix, len(t.doors))
	door := nfsDoor{nfs.New(nfs.Config{Address: net.JoinHostPort(host, nfsPort), Path: "/srv/cairn/" + share.ID, Name: name, Timeout: timeout})}
	t.doors = append(t.doors, door)
	return door
}

// Read is the whole content of a share through one of its doors: sums by path.
func Read(ctx context.Context, door Door) (map[string]string, error) {
	names, err := door.List(ctx)
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for _, name := range names {
		content, err := door.Get(ctx, name)
		if err != nil {
			return nil, err
		}
		sums[name] = Sum(content)
	}
	return sums, nil
}
