package webdav

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/cairn-storage/cairn"
)

// maxListing bounds what Reach reads of an answer.
const maxListing = 1 << 20

// Reach lists the directory at url as a client with that user and password. Errors: cairn.ErrUnavailable if there is no answer,
// or another one than that of a WebDAV server that lets the client in.
func Reach(ctx context.Context, client *http.Client, url, user, password string) error {
	request, err := http.NewRequestWithContext(ctx, "PROPFIND", url, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	request.Header.Set("Depth", "1")
	request.SetBasicAuth(user, password)
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("%w: %w", cairn.ErrUnavailable, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxListing))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", cairn.ErrUnavailable, err)
	case answer.StatusCode != http.StatusMultiStatus:
		return fmt.Errorf("%s: is answered with %s (%.200q): %w", url, answer.Status, body, cairn.ErrUnavailable)
	}
	return nil
}
