package server

import (
	"encoding/base64"
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn"
)

const (
	// pageRows is the largest page, and that of a request which names no size.
	pageRows = 1000
	// pageBytes ends a page early: an answer must fit into one message.
	pageBytes = 2 << 20
)

// page renders the rows that follow the page token, at most size of them. Rows come in order of key, and the token is the
// key of the last row of the page before, so rows that come and go in between move no other across the border.
func page[R any, M proto.Message](rows iter.Seq[R], size int32, token string, key func(R) string, render func(R) M) (out []M, next string, err error) {
	if size < 0 {
		return nil, "", fmt.Errorf("page size %d: must not be negative: %w", size, cairn.ErrInvalid)
	}
	if size == 0 || size > pageRows {
		size = pageRows
	}
	after, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return nil, "", fmt.Errorf("page token: was not made by this API: %w", cairn.ErrInvalid)
	}
	last, bytes := "", 0
	for row := range rows {
		k := key(row)
		if token != "" && k <= string(after) {
			continue
		}
		if len(out) == int(size) || bytes >= pageBytes {
			return out, base64.RawURLEncoding.EncodeToString([]byte(last)), nil
		}
		message := render(row)
		out, last, bytes = append(out, message), k, bytes+proto.Size(message)
	}
	return out, "", nil
}
