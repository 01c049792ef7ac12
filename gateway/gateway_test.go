package gateway

import (
	"crypto/tls"
	"encoding/base64"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/identity/identitytest"
)

// TestEveryNodeIsADoor: the same requests do the same through the node that serves the share and through the others.
func TestEveryNodeIsADoor(t *testing.T) {
	r := newRig(t, 0)
	client := r.client("127.0.0.1")
	for _, node := range []cairn.NodeID{"n1", "n2", "n3"} {
		d := r.nodes[node]
		name := string(node)
		r.expect("PUT", d.ask(client, "PUT", name, "text of "+name), http.StatusCreated, "")
		r.expect("MKCOL", d.ask(client, "MKCOL", name+".d", ""), http.StatusCreated, "")
		r.expect("MOVE", d.ask(client, "MOVE", name, "", "Destination", "https://"+d.address+"/shares/s1/"+name+".d/x%20y"), http.StatusCreated, "")
		for _, other := range r.nodes {
			r.expect("GET", other.ask(client, "GET", name+".d/x%20y", ""), http.StatusOK, "text of "+name)
			r.expect("PROPFIND", other.ask(client, "PROPFIND", name+".d", "", "Depth", "1"), http.StatusMultiStatus, "/shares/s1/"+name+".d/x%20y")
		}
		part := d.ask(client, "GET", name+".d/x%20y", "", "Range", "bytes=5-6")
		r.expect("GET of a part", part, http.StatusPartialContent, "of")
		r.expect("GET of nothing", d.ask(client, "GET", "absent", ""), http.StatusNotFound, "no such file")
		r.expect("another share", d.ask(client, "GET", "/shares/s9/x", ""), http.StatusServiceUnavailable, "does not serve")
		r.expect("no share", d.ask(client, "GET", "/shares/", ""), http.StatusNotFound, "want a path")
	}
	if got := r.nodes["n3"].gateway.Counters(); got.Forwarded == 0 || got.Lost != 0 || got.Waited != 0 {
		t.Errorf("counters of n3: %+v", got)
	}
}

// TestBodiesAreStreams: what a client has sent arrives before it has sent all, and what the node sends arrives before all is there.
func TestBodiesAreStreams(t *testing.T) {
	r := newRig(t, 0)
	begun := make(chan struct{}, 1)
	more := make(chan struct{})
	r.nodes["n1"].before(func(w http.ResponseWriter, q *http.Request, files http.Handler) {
		if q.Method == "PUT" {
			first := make([]byte, 5)
			if _, err := io.ReadFull(q.Body, first); err != nil || string(first) != "first" {
				t.Errorf("the first bytes are %q (%v)", first, err)
			}
			begun <- struct{}{}
			n, err := io.Copy(io.Discard, q.Body)
			if err != nil || n != 1<<20 {
				t.Errorf("then %d bytes came (%v)", n, err)
			}
			return
		}
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "after")
	})
	client := r.client("127.0.0.1")
	body, sender := io.Pipe()
	request, err := http.NewRequest("PUT", "https://"+r.nodes["n3"].address+"/shares/s1/x", body)
	r.must(err)
	done := make(chan error, 1)
	go func() {
		response, err := client.Do(request)
		if err == nil {
			response.Body.Close()
		}
		done <- err
	}()
	_, err = io.WriteString(sender, "first")
	r.must(err)
	<-begun // and the rest is not sent yet
	_, err = sender.Write(make([]byte, 1<<20))
	r.must(err)
	r.must(sender.Close())
	r.must(<-done)

	response, err := client.Get("https://" + r.nodes["n3"].address + "/shares/s1/x")
	r.must(err)
	defer response.Body.Close()
	first := make([]byte, 5)
	_, err = io.ReadFull(response.Body, first)
	r.must(err)
	close(more)
	rest, err := io.ReadAll(response.Body)
	r.must(err)
	if string(first)+string(rest) != "firstafter" {
		t.Errorf("read %q and %q", first, rest)
	}
}

// TestAccessRules: rules see the client and not the node in between, and nobody but a node says who the client is.
func TestAccessRules(t *testing.T) {
	r := newRig(t, 0)
	alice, mallory := identitytest.User(t, r.founder, "alice"), identitytest.User(t, r.founder, "mallory")
	stranger := *identitytest.Member(t, r.founder, "n4").Credential() // of the cluster's authority, but no member
	certificate := base64.StdEncoding.EncodeToString(alice.Certificate[0])
	for name, c := range map[string]struct {
		rule   cairn.AccessRule
		from   string
		with   []tls.Certificate
		header []string
		want   int
	}{
		"address":                     {rule(cairn.AccessIP, "127.0.0.9"), "127.0.0.9", nil, nil, http.StatusMultiStatus},
		"another address":             {rule(cairn.AccessIP, "127.0.0.9"), "127.0.0.8", nil, nil, http.StatusForbidden},
		"address of the nodes":        {rule(cairn.AccessIP, "127.0.0.1"), "127.0.0.8", nil, nil, http.StatusForbidden},
		"forged address":              {rule(cairn.AccessIP, "127.0.0.9"), "127.0.0.8", nil, []string{headerClient, "127.0.0.9:1"}, http.StatusForbidden},
		"usual header":                {rule(cairn.AccessIP, "127.0.0.9"), "127.0.0.8", nil, []string{"X-Forwarded-For", "127.0.0.9"}, http.StatusForbidden},
		"address forged by a user":    {rule(cairn.AccessIP, "127.0.0.9"), "127.0.0.8", []tls.Certificate{alice}, []string{headerClient, "127.0.0.9:1"}, http.StatusForbidden},
		"address forged by no member": {rule(cairn.AccessIP, "127.0.0.9"), "127.0.0.8", []tls.Certificate{stranger}, []string{headerClient, "127.0.0.9:1"}, http.StatusForbidden},
		"certificate":                 {rule(cairn.AccessCert, "user/alice"), "127.0.0.8", []tls.Certificate{alice}, nil, http.StatusMultiStatus},
		"another certificate":         {rule(cairn.AccessCert, "user/alice"), "127.0.0.8", []tls.Certificate{mallory}, nil, http.StatusForbidden},
		"forged certificate": {
			rule(cairn.AccessCert, "user/alice"), "127.0.0.8", []tls.Certificate{mallory},
			[]string{headerClient, "127.0.0.9:1", headerCertificate, certificate}, http.StatusForbidden,
		},
		"password": {
			cairn.AccessRule{ID: "r", Kind: cairn.AccessUser, Who: "bob", Level: cairn.AccessRW, State: cairn.RuleActive, Secret: cairn.HashSecret([]byte("salt"), "open sesame")},
			"127.0.0.8", nil, []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("bob:open sesame"))}, http.StatusMultiStatus,
		},
	} {
		r.export("s2", "n1", c.rule)
		client := r.client(c.from, c.with...)
		for node, d := range r.nodes {
			if got := d.ask(client, "PROPFIND", "/shares/s2/", "", append(c.header, "Depth", "0")...); got.status != c.want {
				t.Errorf("%s, through %s: %d %s (%v), want %d", name, node, got.status, got.text, got.err, c.want)
			}
		}
	}
}

// TestOneHop: what a node has passed on is served or refused, and never passed on again.
func TestOneHop(t *testing.T) {
	r := newRig(t, time.Hour)
	client := r.client("127.0.0.1", *r.nodes["n3"].id.Credential())
	got := r.nodes["n2"].ask(client, "GET", "x", "", headerClient, "127.0.0.1:1")
	r.expect("a request that was passed on to the wrong node", got, http.StatusServiceUnavailable, "does not serve")
	if got.header.Get("Cairn-Unchanged") == "" {
		t.Error("the node does not say that nothing was changed")
	}
	r.expect("a client's address that is none", r.nodes["n1"].ask(client, "GET", "x", "", headerClient, "nobody"), http.StatusBadRequest, headerClient)
	r.expect("a certificate that is none", r.nodes["n1"].ask(client, "GET", "x", "", headerClient, "127.0.0.1:1", headerCertificate, "eA=="), http.StatusBadRequest, headerCertificate)
}

// TestFailover: requests that come while nobody serves the share wait, and are carried out once by the node that takes over.
func TestFailover(t *testing.T) {
	r := newRig(t, patience)
	client := r.client("127.0.0.1")
	d := r.nodes["n3"]
	r.expect("before", d.ask(client, "PUT", "old", "1"), http.StatusCreated, "")
	r.must(r.nodes["n1"].server.Close()) // the process is gone, and nobody knows yet
	replies := make(chan reply, 2)
	go func() { replies <- d.ask(client, "PUT", "new", "2") }()
	go func() { replies <- d.ask(client, "MKCOL", "dir", "") }()
	r.await("both requests wait", func() bool { return d.gateway.Counters().Waited == 2 })
	r.down("n1")
	r.failOver()
	r.export("s1", "n2", rule(cairn.AccessIP, "127.0.0.1"))
	for range 2 {
		r.expect("a request that waited", <-replies, http.StatusCreated, "")
	}
	r.expect("what was written", r.nodes["n2"].ask(client, "GET", "new", ""), http.StatusOK, "2")
}

// TestNobodyServes: the wait is bounded, and the answer says what is the matter.
func TestNobodyServes(t *testing.T) {
	r := newRig(t, 50*time.Millisecond)
	client := r.client("127.0.0.1")
	r.must(r.nodes["n1"].server.Close())
	got := r.nodes["n3"].ask(client, "PUT", "x", "1")
	r.expect("not declared down", got, http.StatusServiceUnavailable, "node n1, which has the active copy of this share, does not serve it now")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.down("n1")
	r.expect("no failover", r.nodes["n3"].ask(client, "GET", "x", ""), http.StatusServiceUnavailable, "no other one has taken over")
	waited := r.nodes["n3"].gateway.Counters().Waited
	r.expect("the only copy", r.nodes["n3"].ask(client, "GET", "/shares/s2/x", ""), http.StatusServiceUnavailable, "node n1, which has the only copy of this share, is down")
	if r.nodes["n3"].gateway.Counters().Waited != waited {
		t.Error("a request has waited for what cannot come")
	}
}

// TestServedHereLater: a request to the node of the active replica waits, too, until that is exported.
func TestServedHereLater(t *testing.T) {
	r := newRig(t, patience)
	client := r.client("127.0.0.1")
	r.down("n1")
	r.failOver()
	replies := make(chan reply, 1)
	go func() { replies <- r.nodes["n2"].ask(client, "PUT", "x", "text") }()
	r.await("the request waits", func() bool { return r.nodes["n2"].gateway.Counters().Waited == 1 })
	r.export("s1", "n2", rule(cairn.AccessIP, "127.0.0.1"))
	got := <-replies
	r.expect("PUT", got, http.StatusCreated, "")
	if len(got.header["Cairn-Unchanged"]) > 0 {
		t.Error("the answer has a header of the refusal before it")
	}
}

// TestNothingTwice breaks the connection between the nodes in every phase of a request. The node may see it a second time only
// if it cannot have done anything the first time.
func TestNothingTwice(t *testing.T) {
	hangUp := func(w http.ResponseWriter, _ *http.Request) { // as a process does that dies; the server would wait for the body first
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			err = conn.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}
	readAll := func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		hangUp(w, q)
	}
	halfAnAnswer := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	refuse := func(status int, header string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(header, "1")
			w.WriteHeader(status)
		}
	}
	const broken = -1
	for name, c := range map[string]struct {
		method, body string
		first        func(http.ResponseWriter, *http.Request)
		status       int
		seen         int32
	}{
		"DELETE, nothing is answered":           {"DELETE", "", hangUp, http.StatusBadGateway, 1},
		"MKCOL, nothing is answered":            {"MKCOL", "", hangUp, http.StatusBadGateway, 1},
		"PUT, nothing is answered to all of it": {"PUT", "text", readAll, http.StatusBadGateway, 1},
		"PUT of nothing, nothing is answered":   {"PUT", "", hangUp, http.StatusBadGateway, 1},
		"PUT, nobody wanted the body":           {"PUT", "text", hangUp, http.StatusCreated, 2},
		"PUT, refused before the body":          {"PUT", "text", refuse(503, "Cairn-Unchanged"), http.StatusCreated, 2},
		"DELETE, refused":                       {"DELETE", "", refuse(503, "Cairn-Unchanged"), http.StatusNotFound, 2},
		"DELETE, refused without a word":        {"DELETE", "", refuse(503, "X"), http.StatusServiceUnavailable, 1},
		"DELETE, failed":                        {"DELETE", "", refuse(500, "Cairn-Unchanged"), http.StatusInternalServerError, 1},
		"GET, half an answer":                   {"GET", "", halfAnAnswer, broken, 1},
		"PUT, refused after it was read": {"PUT", "text", func(w http.ResponseWriter, q *http.Request) {
			_, _ = io.Copy(io.Discard, q.Body)
			refuse(503, "Cairn-Unchanged")(w, q)
		}, http.StatusServiceUnavailable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, patience)
			client := r.client("127.0.0.1")
			d := r.nodes["n3"]
			r.expect("a first request, whose connection is kept", d.ask(client, "PROPFIND", "", "", "Depth", "0"), http.StatusMultiStatus, "")
			var seen atomic.Int32
			r.nodes["n1"].before(func(w http.ResponseWriter, q *http.Request, files http.Handler) {
				if seen.Add(1) == 1 {
					c.first(w, q)
					return
				}
				files.ServeHTTP(w, q)
			})
			got := d.ask(client, c.method, "x", c.body, "Idempotency-Key", "k")
			if c.status == broken {
				if got.err == nil {
					t.Errorf("half an answer looks whole: %d %q", got.status, got.text)
				}
			} else if got.err != nil || got.status != c.status {
				t.Errorf("answer: %d %s (%v), want %d", got.status, got.text, got.err, c.status)
			}
			if seen.Load() != c.seen {
				t.Errorf("the node has seen it %d times, want %d", seen.Load(), c.seen)
			}
		})
	}
}

// TestRecall: a node that says nothing does not keep requests when another one has taken over.
func TestRecall(t *testing.T) {
	r := newRig(t, patience)
	client := r.client("127.0.0.1")
	d := r.nodes["n3"]
	stuck := make(chan struct{}, 2)
	r.nodes["n1"].before(func(_ http.ResponseWriter, q *http.Request, _ http.Handler) {
		stuck <- struct{}{}
		<-q.Context().Done()
	})
	put, mkcol := make(chan reply, 1), make(chan reply, 1)
	go func() { put <- d.ask(client, "PUT", "x", "text") }()
	go func() { mkcol <- d.ask(client, "MKCOL", "y", "") }()
	<-stuck
	<-stuck
	r.down("n1")
	r.failOver()
	r.expect("MKCOL, which may have been done", <-mkcol, http.StatusBadGateway, "not known")
	r.export("s1", "n2", rule(cairn.AccessIP, "127.0.0.1"))
	r.expect("PUT, whose body is here", <-put, http.StatusCreated, "")
	r.expect("GET", d.ask(client, "GET", "x", ""), http.StatusOK, "text")
}
