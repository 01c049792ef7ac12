package cairn

import (
	"errors"
	"strings"
	"testing"
)

func TestParseSquash(t *testing.T) {
	for _, tt := range []struct {
		name     string
		metadata string // pairs
		want     Squash
		err      error
		text     string
	}{
		{"nothing", "owner=me", Squash{}, nil, ""},
		{"none", "nfs:squash=none", Squash{Mode: SquashNone}, nil, ""},
		{"root", "nfs:squash=root", Squash{SquashRoot, Nobody, Nobody}, nil, ""},
		{"all", "nfs:squash=all nfs:anonuid=1000 nfs:anongid=0", Squash{SquashAll, 1000, 0}, nil, ""},
		{"the highest", "nfs:squash=all nfs:anonuid=4294967294", Squash{SquashAll, 4294967294, Nobody}, nil, ""},
		{"no user", "nfs:squash=all nfs:anonuid=4294967295", Squash{}, ErrInvalid, "nfs:anonuid"},
		{"negative", "nfs:squash=all nfs:anongid=-2", Squash{}, ErrInvalid, "nfs:anongid"},
		{"not as it is written", "nfs:squash=all nfs:anongid=007", Squash{}, ErrInvalid, "nfs:anongid"},
		{"empty", "nfs:squash=", Squash{}, ErrInvalid, "want none, root or all"},
		{"as in exports", "nfs:squash=all_squash", Squash{}, ErrInvalid, "want none, root or all"},
		{"nobody becomes it", "nfs:squash=none nfs:anonuid=1", Squash{}, ErrInvalid, "nobody becomes it"},
		{"without a mode", "nfs:anonuid=1", Squash{}, ErrInvalid, "nfs:squash"},
		{"unknown key", "nfs:squahs=all", Squash{}, ErrInvalid, "nfs:squahs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			metadata := map[string]string{}
			for pair := range strings.FieldsSeq(tt.metadata) {
				key, value, _ := strings.Cut(pair, "=")
				metadata[key] = value
			}
			got, err := ParseSquash(ProtocolNFS, metadata)
			if got != tt.want || !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %+v, %v; want %+v, %v with %q", got, err, tt.want, tt.err, tt.text)
			}
		})
	}
	if _, err := ParseSquash(ProtocolWebDAV, map[string]string{KeySquash: "all"}); !errors.Is(err, ErrNotSupported) {
		t.Errorf("over webdav: %v", err)
	}
}
