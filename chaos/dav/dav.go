// Package dav is a small WebDAV client over verified TLS. The demonstration and the tests of whole clusters read and write
// shares with it, as any client of a user would. It knows nothing of Cairn but the URL of a share; it follows no redirect and
// repeats nothing.
package dav

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"time"
)

// Config says what to connect to, and as whom.
type Config struct {
	URL         string // of the share or the mounted snapshot
	CA          []byte // PEM; nothing else is trusted
	User        string // with Password: of a user rule; "" for rules by address
	Password    string
	Connections int           // kept open at the same time; 1 if 0
	Timeout     time.Duration // of each request, its body included; 1 minute if 0
	Source      netip.Addr    // where connections come from; whichever the system chooses if zero
}

// Client reads and writes one share. It is safe for concurrent use.
type Client struct {
	base *url.URL
	user *url.Userinfo
	http *http.Client
}

// StatusError is an answer that says no.
type StatusError struct {
	Method, Path string
	Status       int
	Line         string // what the server says about it
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: %d %s: %s", e.Method, e.Path, e.Status, http.StatusText(e.Status), e.Line)
}

// StatusOf is the HTTP status that an error carries, 0 if the server did not answer.
func StatusOf(err error) int {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Status
	}
	return 0
}

// New makes a client; nothing is sent yet.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(strings.TrimSuffix(cfg.URL, "/"))
	if err != nil {
		return nil, fmt.Errorf("share URL: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cfg.CA) {
		return nil, fmt.Errorf("share %s: the CA is no PEM certificate", cfg.URL)
	}
	connections, timeout := max(cfg.Connections, 1), cfg.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		MaxConnsPerHost:     connections,
		MaxIdleConnsPerHost: connections,
		DisableCompression:  true,
	}
	if cfg.Source.IsValid() {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: cfg.Source.AsSlice()}}
		transport.DialContext = dialer.DialContext
	}
	c := &Client{base: base, http: &http.Client{Transport: transport, Timeout: timeout, CheckRedirect: noRedirect}}
	if cfg.User != "" {
		c.user = url.UserPassword(cfg.User, cfg.Password)
	}
	return c, nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Put writes a whole file of size bytes.
func (c *Client) Put(ctx context.Context, name string, data io.Reader, size int64) error {
	_, err := c.PutHeader(ctx, name, data, size)
	return err
}

// PutHeader is Put with the header of the answer, in which a server may say who has committed the file.
func (c *Client) PutHeader(ctx context.Context, name string, data io.Reader, size int64) (http.Header, error) {
	request, err := c.request(ctx, http.MethodPut, name, io.NopCloser(data))
	if err != nil {
		return nil, err
	}
	request.ContentLength = size
	if size == 0 {
		request.Body = http.NoBody
	}
	return c.done(request)
}

// Get opens a file. An answer that breaks off is an error of the last Read.
func (c *Client) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	body, _, err := c.GetHeader(ctx, name)
	return body, err
}

// GetHeader is Get with the header of the answer, in which a server may say what point in time the file is read from.
func (c *Client) GetHeader(ctx context.Context, name string) (io.ReadCloser, http.Header, error) {
	request, err := c.request(ctx, http.MethodGet, name, nil)
	if err != nil {
		return nil, nil, err
	}
	response, err := c.send(request)
	if err != nil {
		return nil, nil, err
	}
	return response.Body, response.Header, nil
}

// Delete removes a file, or a directory with everything in it.
func (c *Client) Delete(ctx context.Context, name string) error {
	return c.simple(ctx, http.MethodDelete, name)
}

// Mkdir makes a directory in one that exists.
func (c *Client) Mkdir(ctx context.Context, name string) error {
	return c.simple(ctx, "MKCOL", name)
}

// Move renames a file or directory. It replaces nothing.
func (c *Client) Move(ctx context.Context, from, to string) error {
	request, err := c.request(ctx, "MOVE", from, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Destination", c.at(to).String())
	request.Header.Set("Overwrite", "F")
	_, err = c.done(request)
	return err
}

func (c *Client) simple(ctx context.Context, method, name string) error {
	request, err := c.request(ctx, method, name, nil)
	if err != nil {
		return err
	}
	_, err = c.done(request)
	return err
}

// at is the URL of a name in the share.
func (c *Client) at(name string) *url.URL {
	at := *c.base
	at.Path = c.base.Path + path.Clean("/"+name)
	at.RawPath = ""
	return &at
}

func (c *Client) request(ctx context.Context, method, name string, body io.Reader) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.at(name).String(), body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, name, err)
	}
	if c.user != nil {
		password, _ := c.user.Password()
		request.SetBasicAuth(c.user.Username(), password)
	}
	return request, nil
}

// send returns an answer that says yes.
func (c *Client) send(request *http.Request) (*http.Response, error) {
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err // names method and URL itself
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer response.Body.Close()
	line, _ := io.ReadAll(io.LimitReader(response.Body, 1000)) // what arrives of it is enough
	return nil, &StatusError{
		Method: request.Method, Path: request.URL.Path, Status: response.StatusCode, Line: strings.TrimSpace(string(line)),
	}
}

// done sends and reads the answer to its end, so that the connection can be used again.
func (c *Client) done(request *http.Request) (http.Header, error) {
	response, err := c.send(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return nil, fmt.Errorf("%s %s: answer: %w", request.Method, request.URL.Path, err)
	}
	return response.Header, nil
}
