package identity_test

import (
	"crypto/x509"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/cluster/identity"
)

// FuzzToken: what is pasted as a token is one that can be written again, or is refused without a word of it, which is secret.
func FuzzToken(f *testing.F) {
	good, err := identity.Token{
		Cluster: "c", ID: "t", Node: "n", Name: "n2", Secret: []byte("sssssssssssssssssssss"), Fingerprint: strings.Repeat("ab", 32), Addresses: []string{"n1:7450"},
	}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("eyJ9")
	f.Add("e30")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := identity.ParseToken(text)
		if err != nil {
			if !errors.Is(err, cairn.ErrInvalid) || len(text) > 30 && strings.Contains(err.Error(), text) {
				t.Errorf("%q", err)
			}
			return
		}
		again, err := token.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if same, err := identity.ParseToken(again); err != nil || !reflect.DeepEqual(same, token) {
			t.Errorf("%+v is read as %+v (%v)", token, same, err)
		}
	})
}

// FuzzRequest: the certificate that a stranger's request gets is for the node that its token names, whatever the request says.
func FuzzRequest(f *testing.F) {
	for _, hosts := range [][]string{nil, {"n2.example.org", "10.0.0.2"}, {"node/other"}} {
		csr, _, err := identity.NewRequest(hosts)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(csr)
	}
	now := time.Unix(1_700_000_000, 0)
	authority, err := identity.NewAuthority("berlin", now)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, csr []byte) {
		_, hashErr := identity.KeyHash(csr)
		der, err := authority.SignNode(csr, "n2", now)
		if (hashErr == nil) != (err == nil) {
			t.Errorf("key hash: %v; signature: %v", hashErr, err)
		}
		if err != nil {
			return
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		subject, err := identity.SubjectOf(certificate)
		if err != nil {
			t.Fatal(err)
		}
		if node, err := subject.Node(); err != nil || node != "n2" || certificate.IsCA {
			t.Errorf("a certificate for %s (%v), authority: %t", subject, err, certificate.IsCA)
		}
	})
}
