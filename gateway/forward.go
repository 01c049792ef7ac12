package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairn-storage/cairn"
)

const (
	// bodyPatience is how long a body waits for the other node's word that it wants it. It is held back so that a request
	// which is refused can still be sent elsewhere; a node that says nothing gets it after this.
	bodyPatience = 5 * time.Second
	// idleTimeout and idlePerNode are of connections that nothing is sent on. Nodes keep them for two minutes.
	idleTimeout = 30 * time.Second
	idlePerNode = 64
	copyBuffer  = 64 << 10
)

func (g *Gateway) newTransport() *http.Transport {
	return &http.Transport{
		DialTLSContext:        g.dial,
		DisableCompression:    true,
		ExpectContinueTimeout: bodyPatience,
		IdleConnTimeout:       idleTimeout,
		MaxIdleConnsPerHost:   idlePerNode,
		WriteBufferSize:       copyBuffer,
		ReadBufferSize:        copyBuffer,
	}
}

// dial connects to a node, which is the host of the URLs that forward makes.
func (g *Gateway) dial(ctx context.Context, _, address string) (net.Conn, error) {
	id, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	row := g.config.State.View().Node(cairn.NodeID(id))
	if row == nil {
		return nil, fmt.Errorf("node %s: %w", id, cairn.ErrNotFound)
	}
	return g.config.Dial(ctx, row.ID, row.HTTPAddress)
}

// attempt is one request at another node.
type attempt struct {
	path   string
	to     cairn.NodeID
	recall context.CancelFunc

	sent atomic.Bool // there was a connection: something of the request may have arrived
	err  error       // why there is no answer
}

// errUnchanged is an answer by which the other node says that it has done nothing.
var errUnchanged = errors.New("node does not serve the share")

// there has another node serve the request.
func (g *Gateway) there(w http.ResponseWriter, r *http.Request, p place) outcome {
	ctx, recall := context.WithCancel(r.Context())
	defer recall()
	a := &attempt{path: r.URL.Path, to: p.row.ID, recall: recall}
	g.register(a)
	defer g.forget(a)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { a.sent.Store(true) }})
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(p *httputil.ProxyRequest) { a.rewrite(p) },
		Transport:      g.transport,
		BufferPool:     &g.buffers,
		FlushInterval:  -1, // what has come is passed on
		ModifyResponse: g.judge,
		ErrorHandler:   func(_ http.ResponseWriter, _ *http.Request, err error) { a.err = err },
		ErrorLog:       log.New(io.Discard, "", 0), // an answer that breaks off is seen by the client
	}
	proxy.ServeHTTP(&patient{w, http.NewResponseController(w)}, r.WithContext(ctx))
	switch {
	case a.err == nil:
		g.counters.forwarded.Add(1)
		return answered
	case !a.sent.Load(), errors.Is(a.err, errUnchanged):
		return unchanged
	}
	g.config.Logger.Warn("gateway: no answer", "node", p.row.Name, "method", r.Method, "path", r.URL.Path, "error", a.err)
	return unknown
}

func (a *attempt) rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme, p.Out.URL.Host = "https", string(a.to)
	wrap(p.Out, p.In)
	// With one of these the transport would take any request for one that may be repeated.
	p.Out.Header.Del("Idempotency-Key")
	p.Out.Header.Del("X-Idempotency-Key")
	p.Out.Header.Del("Expect")
	if p.In.ContentLength != 0 {
		p.Out.Header.Set("Expect", "100-continue")
	}
}

// judge lets all answers through but one.
func (g *Gateway) judge(answer *http.Response) error {
	if answer.StatusCode == http.StatusServiceUnavailable && answer.Header.Get(g.config.Unchanged) != "" {
		return errUnchanged
	}
	return nil
}

func (g *Gateway) register(a *attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sent[a] = true
}

func (g *Gateway) forget(a *attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sent, a)
}

// bufferPool is what answers are copied through.
type bufferPool struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[copyBuffer]byte); ok {
		return p[:]
	}
	return make([]byte, copyBuffer)
}

// Put implements httputil.BufferPool.
func (b *bufferPool) Put(p []byte) { b.pool.Put((*[copyBuffer]byte)(p)) }
