package virtual

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// silence is after how long a connection breaks on which nothing comes through, and how long a dial waits for nobody.
const (
	silence  = 5 * scale * time.Second
	dialWait = scale * 2 * time.Second
)

// network connects hosts by name. Streams lose nothing, as TCP: what does not come through comes later, or the connection
// breaks. Packets are lost, doubled and overtaken.
type network struct {
	mu      sync.Mutex
	random  *rand.Rand
	ports   map[string]*port // by host:port
	conns   map[*conn]bool
	cut     map[[2]string]bool       // from, to
	frozen  map[string]bool          // hosts that are stopped
	slow    time.Duration            // the longest delay of a message
	late    map[string]time.Duration // how much longer what is sent to a host takes
	loss    int                      // percent of packets
	packets map[string]*packets
}

func newNetwork(random *rand.Rand) *network {
	return &network{
		random: random, ports: make(map[string]*port), conns: make(map[*conn]bool), cut: make(map[[2]string]bool),
		frozen: make(map[string]bool), late: make(map[string]time.Duration), packets: make(map[string]*packets), slow: 2 * time.Millisecond,
	}
}

// open reports whether something that is sent now arrives; the caller holds the lock.
func (n *network) open(from, to string) bool {
	return !n.cut[[2]string{from, to}] && !n.frozen[from] && !n.frozen[to]
}

func (n *network) delay() time.Duration {
	return time.Duration(n.random.Int64N(int64(n.slow))) + 100*time.Microsecond
}

// change changes who reaches whom, and lets what was held back go on.
func (n *network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	for c := range n.conns {
		c.in.kick()
	}
}

// kill ends the connections of a host. With it gone silently, as when power fails, the others do not hear of it.
func (n *network) kill(host string, silently bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		switch {
		case c.local == host:
			c.in.fail(syscall.ECONNRESET)
			delete(n.conns, c)
		case c.remote == host && !silently:
			c.in.fail(syscall.ECONNRESET)
		case c.remote == host:
			c.in.orphan()
		}
	}
}

// port is a listener.
type port struct {
	network *network
	host    string
	address string
	accept  chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (n *network) listen(host, address string) *port {
	p := &port{network: n, host: host, address: address, accept: make(chan net.Conn, 64), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports[address] = p
	return p
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.network.mu.Lock()
		defer p.network.mu.Unlock()
		if p.network.ports[p.address] == p {
			delete(p.network.ports, p.address)
		}
	})
	return nil
}

func (p *port) Addr() net.Addr { return where(p.address) }

type where string

func (where) Network() string  { return "virtual" }
func (w where) String() string { return string(w) }

// dial connects a host to an address.
func (n *network) dial(ctx context.Context, from, address string) (net.Conn, error) {
	for waited := time.Duration(0); ; waited += dialWait / 4 {
		n.mu.Lock()
		p, delay := n.ports[address], n.delay()
		reached := p != nil && n.open(from, p.host) && n.open(p.host, from)
		n.mu.Unlock()
		wait := dialWait / 4
		if reached || p == nil {
			wait = 2 * delay
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case reached:
			return n.connect(from, p)
		case p == nil && !n.stopped(from):
			return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
		case waited > dialWait:
			return nil, fmt.Errorf("dial %s: %w", address, os.ErrDeadlineExceeded)
		}
	}
}

func (n *network) stopped(host string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.frozen[host]
}

func (n *network) connect(from string, to *port) (net.Conn, error) {
	a := &conn{network: n, local: from, remote: to.host, in: newFlow(n, to.host, from)}
	b := &conn{network: n, local: to.host, remote: from, in: newFlow(n, from, to.host)}
	a.peer, b.peer = b, a
	a.in.other, b.in.other = b.in, a.in
	n.mu.Lock()
	n.conns[a], n.conns[b] = true, true
	n.mu.Unlock()
	select {
	case to.accept <- b:
		return a, nil
	case <-to.closed:
	default:
	}
	_ = a.Close()
	return nil, fmt.Errorf("dial %s: %w", to.address, syscall.ECONNREFUSED)
}

// conn is one end of a connection.
type conn struct {
	network       *network
	local, remote string
	in            *flow // what this end reads
	peer          *conn
}

func (c *conn) Read(b []byte) (int, error) { return c.in.read(b) }

func (c *conn) Write(b []byte) (int, error) {
	if err := c.in.broken(); err != nil {
		return 0, err
	}
	c.peer.in.send(append([]byte(nil), b...), false)
	return len(b), nil
}

func (c *conn) Close() error {
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	if c.in.fail(net.ErrClosed) {
		c.peer.in.send(nil, true)
	}
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return where(c.local) }
func (c *conn) RemoteAddr() net.Addr { return where(c.remote) }

func (c *conn) SetDeadline(t time.Time) error     { return c.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(time.Time) error  { return nil } // a write never waits
func (c *conn) SetReadDeadline(t time.Time) error { c.in.deadline(t); return nil }

// flow is one direction of a connection.
type flow struct {
	network  *network
	from, to string
	other    *flow // the other direction

	mu      sync.Mutex
	changed sync.Cond
	pending []segment // on their way, in order
	ready   []byte
	ended   bool // the other end has closed, and everything has arrived
	err     error
	lost    bool // the other end is gone and nobody says so
	until   time.Time
	timer   *time.Timer
	held    *time.Timer // breaks the connection when nothing comes through for long
}

type segment struct {
	at   time.Time
	data []byte
	last bool
}

func newFlow(n *network, from, to string) *flow {
	f := &flow{network: n, from: from, to: to}
	f.changed.L = &f.mu
	return f
}

func (f *flow) send(data []byte, last bool) {
	f.network.mu.Lock()
	delay, open := f.network.delay()+f.network.late[f.to], f.network.open(f.from, f.to)
	f.network.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	at := time.Now().Add(delay)
	if n := len(f.pending); n > 0 && f.pending[n-1].at.After(at) {
		at = f.pending[n-1].at // a stream does not overtake itself
	}
	f.pending = append(f.pending, segment{at, data, last})
	if open && !f.lost {
		time.AfterFunc(time.Until(at), f.arrive)
	} else {
		f.hold()
	}
}

// hold gives the other end some time to be reached again; the caller holds the lock.
func (f *flow) hold() {
	if f.held == nil {
		f.held = time.AfterFunc(silence, func() {
			f.fail(syscall.ETIMEDOUT)
			f.other.fail(syscall.ETIMEDOUT)
		})
	}
}

// arrive delivers what is due.
func (f *flow) arrive() {
	f.network.mu.Lock()
	open := f.network.open(f.from, f.to)
	f.network.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !open || f.lost {
		f.hold()
		return
	}
	if f.held != nil {
		f.held.Stop()
		f.held = nil
	}
	now := time.Now()
	for len(f.pending) > 0 && !f.pending[0].at.After(now) {
		f.ready = append(f.ready, f.pending[0].data...)
		f.ended = f.ended || f.pending[0].last
		f.pending = f.pending[1:]
	}
	f.changed.Broadcast()
}

// kick is called when the network has changed.
func (f *flow) kick() {
	f.mu.Lock()
	waits := len(f.pending) > 0
	f.mu.Unlock()
	if waits {
		time.AfterFunc(time.Millisecond, f.arrive)
	}
}

func (f *flow) orphan() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost = true
	if len(f.pending) > 0 {
		f.hold()
	}
	time.AfterFunc(3*silence, func() { f.fail(syscall.ETIMEDOUT) })
}

func (f *flow) fail(err error) (first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return false
	}
	f.err = err
	for _, t := range []*time.Timer{f.held, f.timer} {
		if t != nil {
			t.Stop()
		}
	}
	f.changed.Broadcast()
	return true
}

func (f *flow) broken() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *flow) deadline(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = t
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	if !t.IsZero() && f.err == nil {
		f.timer = time.AfterFunc(time.Until(t), func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.changed.Broadcast()
		})
	}
	f.changed.Broadcast()
}

func (f *flow) read(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.err != nil:
			return 0, f.err
		case len(f.ready) > 0:
			n := copy(b, f.ready)
			f.ready = f.ready[n:]
			return n, nil
		case f.ended:
			return 0, io.EOF
		case !f.until.IsZero() && !time.Now().Before(f.until):
			return 0, os.ErrDeadlineExceeded
		}
		f.changed.Wait()
	}
}

// packets is a host's port for gossip.
type packets struct {
	network *network
	host    string
	ip      net.IP
	number  int
	in      chan *memberlist.Packet
	streams chan net.Conn
	port    *port
	serving sync.WaitGroup
}

var _ memberlist.Transport = (*packets)(nil)

func (n *network) gossip(host, ip string, number int) *packets {
	address := fmt.Sprintf("%s:%d", ip, number)
	p := &packets{
		network: n, host: host, ip: net.ParseIP(ip), number: number,
		in: make(chan *memberlist.Packet, 256), streams: make(chan net.Conn, 16), port: n.listen(host, address),
	}
	n.mu.Lock()
	n.packets[address] = p
	n.mu.Unlock()
	p.serving.Go(func() {
		for {
			c, err := p.port.Accept()
			if err != nil {
				return
			}
			select {
			case p.streams <- c:
			default:
				_ = c.Close()
			}
		}
	})
	return p
}

func (p *packets) FinalAdvertiseAddr(string, int) (net.IP, int, error) { return p.ip, p.number, nil }

func (p *packets) WriteTo(b []byte, address string) (time.Time, error) {
	n, now := p.network, time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	to := n.packets[address]
	if to == nil || n.random.IntN(100) < n.loss || !n.open(p.host, to.host) {
		return now, nil
	}
	packet := &memberlist.Packet{Buf: append([]byte(nil), b...), From: &net.UDPAddr{IP: p.ip, Port: p.number}}
	for range 1 + n.random.IntN(50)/49 {
		time.AfterFunc(n.delay(), func() {
			again := *packet
			again.Buf, again.Timestamp = append([]byte(nil), packet.Buf...), time.Now()
			select {
			case to.in <- &again:
			default:
			}
		})
	}
	return now, nil
}

func (p *packets) PacketCh() <-chan *memberlist.Packet { return p.in }
func (p *packets) StreamCh() <-chan net.Conn           { return p.streams }

func (p *packets) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return p.network.dial(ctx, p.host, address)
}

func (p *packets) Shutdown() error {
	n := p.network
	n.mu.Lock()
	if address := fmt.Sprintf("%s:%d", p.ip, p.number); n.packets[address] == p {
		delete(n.packets, address)
	}
	n.mu.Unlock()
	err := p.port.Close()
	p.serving.Wait()
	for {
		select {
		case c := <-p.streams:
			err = errors.Join(err, c.Close())
		default:
			return err
		}
	}
}
