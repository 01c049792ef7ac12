package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
)

// Lifetimes of a join token.
const (
	DefaultTokenTTL = time.Hour
	MaxTokenTTL     = 24 * time.Hour
)

const secretBytes = 32

// Token lets one machine join as one named node, once. It carries a secret: it is shown to the operator and kept nowhere.
type Token struct {
	ID          cairn.TokenID   `json:"id"`
	Cluster     cairn.ClusterID `json:"cluster"`
	ClusterName string          `json:"cluster_name"`
	// Fingerprint is the authority's; the joiner compares it before it sends the secret.
	Fingerprint string       `json:"fingerprint"`
	Node        cairn.NodeID `json:"node"`
	Name        string       `json:"name"`
	Secret      []byte       `json:"secret"`
	Addresses   []string     `json:"addresses"`
	ExpiresAt   int64        `json:"expires"` // Unix ns
}

// NewSecret returns a secret for a token.
func NewSecret() ([]byte, error) {
	secret := make([]byte, secretBytes)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("join token: %w", err)
	}
	return secret, nil
}

// SecretHash is what the cluster keeps of a token's secret.
func SecretHash(secret []byte) []byte {
	sum := sha256.Sum256(secret)
	return sum[:]
}

// TokenTTL applies the default and the limit.
func TokenTTL(ttl time.Duration) (time.Duration, error) {
	switch {
	case ttl == 0:
		return DefaultTokenTTL, nil
	case ttl < 0 || ttl > MaxTokenTTL:
		return 0, fmt.Errorf("join token: lifetime %s: want more than 0 and at most %s: %w", ttl, MaxTokenTTL, cairn.ErrInvalid)
	}
	return ttl, nil
}

// Encode renders the token as one word.
func (t Token) Encode() (string, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("join token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(data), nil
}

// ParseToken reads a token that an operator pasted. It never repeats the text, which holds a secret.
func ParseToken(text string) (Token, error) {
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return Token{}, fmt.Errorf("join token: is not complete; paste the whole line of `cairn node token create`: %w", cairn.ErrInvalid)
	}
	var token Token
	if err := json.Unmarshal(data, &token); err != nil {
		return Token{}, fmt.Errorf("join token: is not complete; paste the whole line of `cairn node token create`: %w", cairn.ErrInvalid)
	}
	if token.ID == "" || token.Cluster == "" || token.Node == "" || token.Name == "" || len(token.Secret) != secretBytes ||
		len(token.Fingerprint) != 2*sha256.Size || len(token.Addresses) == 0 {
		return Token{}, fmt.Errorf("join token: lacks a part; make a new one with `cairn node token create`: %w", cairn.ErrInvalid)
	}
	return token, nil
}
