package client_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn/rpc/client"
)

// FuzzConfig: a client's configuration is taken or refused in one line, and what was taken is written as something that is taken,
// too.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("addresses = [\"n1:7450\"]\n"))
	f.Add(client.Config{Addresses: []string{"a:1", "b:2"}, CA: []byte("ca"), Certificate: []byte("c"), Key: []byte("k")}.TOML())
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := client.ParseConfig(data)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("%q", err)
			}
			return
		}
		again, err := client.ParseConfig(cfg.TOML())
		if err != nil || !bytes.Equal(again.TOML(), cfg.TOML()) {
			t.Errorf("%s\nis read as\n%s\n%v", cfg.TOML(), again.TOML(), err)
		}
	})
}
