// Package mux shares one TCP port between the protocols of a node, told apart by the ALPN name in the TLS handshake.
//
// It knows nothing of what is spoken inside: it accepts, shakes hands under a deadline, and hands the connection to the
// listener of its protocol. What is not TLS, names no known protocol or does not finish its handshake is dropped.
package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	// maxHandshakes bounds what strangers can make the node do at once. The accept loop waits while it is reached, so
	// at worst a flood slows newcomers for as long as a handshake may take; connections that exist are not affected.
	maxHandshakes = 256
	// backlog is how many finished connections wait for their listener before they are dropped.
	backlog = 64
)

// Protocols maps an ALPN name to the TLS configuration that answers it.
type Protocols map[string]*tls.Config

// Mux owns a listener. Its goroutines are one accept loop and one per handshake; Close ends and awaits them.
type Mux struct {
	listener  net.Listener
	listeners map[string]*listener
	config    *tls.Config
	patience  time.Duration // with a handshake
	logger    *slog.Logger
	slots     chan struct{}
	ctx       context.Context
	cancel    context.CancelFunc
	running   sync.WaitGroup
}

// New starts to serve the listener, which it then owns. Patience is how long a peer may take to prove who it is.
func New(inner net.Listener, protocols Protocols, patience time.Duration, logger *slog.Logger) *Mux {
	ctx, cancel := context.WithCancel(context.Background())
	m := &Mux{
		listener:  inner,
		listeners: make(map[string]*listener),
		patience:  patience,
		logger:    logger,
		slots:     make(chan struct{}, maxHandshakes),
		ctx:       ctx,
		cancel:    cancel,
	}
	for name := range protocols {
		m.listeners[name] = &listener{addr: inner.Addr(), conns: make(chan net.Conn, backlog), closed: make(chan struct{})}
	}
	m.config = &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			for _, name := range hello.SupportedProtos {
				if config := protocols[name]; config != nil {
					return config, nil
				}
			}
			return nil, fmt.Errorf("no protocol of this port among %q", hello.SupportedProtos)
		},
	}
	m.running.Go(m.accept)
	return m
}

// Listener returns the listener of a protocol. Closing it drops the connections that wait for it and later ones.
func (m *Mux) Listener(protocol string) net.Listener { return m.listeners[protocol] }

// Close closes the port and every listener. Connections that were handed out are their owners'.
func (m *Mux) Close() error {
	m.cancel()
	err := m.listener.Close()
	for _, l := range m.listeners {
		_ = l.Close() // never fails
	}
	m.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (m *Mux) accept() {
	for {
		select {
		case m.slots <- struct{}{}:
		case <-m.ctx.Done():
			return
		}
		conn, err := m.listener.Accept()
		if err != nil {
			<-m.slots
			if m.ctx.Err() != nil {
				return
			}
			// Most likely out of descriptors: accepting again at once would only spin.
			m.logger.Warn("port: accept", "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-m.ctx.Done():
				return
			}
		}
		m.running.Go(func() {
			defer func() { <-m.slots }()
			m.handshake(conn)
		})
	}
}

func (m *Mux) handshake(conn net.Conn) {
	ctx, cancel := context.WithTimeout(m.ctx, m.patience)
	defer cancel()
	secure := tls.Server(conn, m.config)
	if err := secure.HandshakeContext(ctx); err != nil {
		m.logger.Debug("port: handshake", "peer", conn.RemoteAddr().String(), "error", err)
		_ = conn.Close() // nothing was agreed on
		return
	}
	l := m.listeners[secure.ConnectionState().NegotiatedProtocol]
	if l == nil || !l.offer(secure) {
		_ = secure.Close() // the listener is gone or does not keep up; the peer dials again
	}
}

// listener is a net.Listener fed by the mux.
type listener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	mu     sync.Mutex // orders offer and Close, so that no connection is left in a channel that nobody reads
	done   bool
}

func (l *listener) offer(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return false
	}
	select {
	case l.conns <- conn:
		return true
	default:
		return false
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return nil
	}
	l.done = true
	close(l.closed)
	for {
		select {
		case conn := <-l.conns:
			_ = conn.Close() // nobody will serve it
		default:
			return nil
		}
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }
