package webdav

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/drivertest"
)

func TestExporterConformance(t *testing.T) {
	servers := make(map[drivers.Exporter]*httptest.Server)
	drivertest.ExporterConformance(t, drivertest.ExporterHarness{
		New: func(t *testing.T, guard drivers.Guard) drivers.Exporter {
			e, server := serve(t, guard, t.Output())
			servers[e] = server
			return e
		},
		Dial: func(t *testing.T, e drivers.Exporter, as drivertest.Identity) drivertest.Client {
			return davClient{servers[e], dial(t, servers[e], as.From), as}
		},
		UserRule: func(_ *testing.T, user string, level cairn.AccessLevel) (cairn.AccessRule, string) {
			return userRule(user, "correct horse", level), "correct horse"
		},
	})
}

func userRule(user, password string, level cairn.AccessLevel) cairn.AccessRule {
	return cairn.AccessRule{
		ID: cairn.RuleID("rule-" + user), Kind: cairn.AccessUser, Who: user, Level: level, State: cairn.RuleActive,
		Secret: cairn.HashSecret([]byte("salt of "+user), password),
	}
}

// davClient is a client of the conformance suite.
type davClient struct {
	server *httptest.Server
	http   *http.Client
	as     drivertest.Identity
}

func (c davClient) Read(ctx context.Context, at cairn.ExportLocation, name string) ([]byte, error) {
	res, err := c.send(ctx, "GET", at.URL+name, "")
	return []byte(res.body), err
}

func (c davClient) Write(ctx context.Context, at cairn.ExportLocation, name string, data []byte) error {
	_, err := c.send(ctx, "PUT", at.URL+name, string(data))
	return err
}

func (c davClient) send(ctx context.Context, method, url, body string) (result, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return result{}, err
	}
	if c.as.User != "" {
		req.SetBasicAuth(c.as.User, c.as.Password)
	}
	res, err := roundTrip(c.http, req)
	if err == nil {
		err = res.verdict()
	}
	return res, err
}

func (r result) verdict() error {
	sentinels := map[int]error{
		http.StatusUnauthorized: cairn.ErrUnauthenticated, http.StatusForbidden: cairn.ErrDenied, http.StatusNotFound: cairn.ErrNotFound,
		http.StatusServiceUnavailable: cairn.ErrUnavailable, http.StatusInsufficientStorage: cairn.ErrNoSpace,
	}
	if r.err != nil || r.status < 400 {
		return r.err
	}
	if sentinel, ok := sentinels[r.status]; ok {
		return fmt.Errorf("%d %s: %w", r.status, r.body, sentinel)
	}
	return fmt.Errorf("%d %s", r.status, r.body)
}

func (c davClient) Begin(ctx context.Context, at cairn.ExportLocation, name string, first []byte) (io.WriteCloser, error) {
	w, verdict, err := begin(ctx, c.server, c.http, at.URL+name, string(first))
	if err != nil {
		return nil, err
	}
	return writeInProgress{w, verdict}, nil
}

type writeInProgress struct {
	*io.PipeWriter
	verdict <-chan result
}

func (w writeInProgress) Close() error {
	if err := w.PipeWriter.Close(); err != nil {
		return err
	}
	return (<-w.verdict).verdict()
}
