package fsm

import (
	"bytes"
	"crypto/sha256"

	"github.com/cairn-storage/cairn"
)

// CreateJoinToken lets one machine join under a name. The secret itself never enters the log, only its SHA-256.
type CreateJoinToken struct{ Token cairn.JoinToken }

// ConsumeJoinToken trades a token for a place in the cluster. KeyHash is the SHA-256 of the joiner's public key: whoever
// asks again with the same key gets the same answer, and everybody else comes too late.
type ConsumeJoinToken struct {
	ID         cairn.TokenID
	SecretHash []byte
	KeyHash    []byte
}

// DeleteJoinToken takes a token back.
type DeleteJoinToken struct{ ID cairn.TokenID }

func (*CreateJoinToken) op() Op           { return OpCreateJoinToken }
func (c *CreateJoinToken) target() string { return "token/" + c.Token.Name }

func (*ConsumeJoinToken) op() Op           { return OpConsumeJoinToken }
func (c *ConsumeJoinToken) target() string { return "token/" + string(c.ID) }

func (*DeleteJoinToken) op() Op           { return OpDeleteJoinToken }
func (c *DeleteJoinToken) target() string { return "token/" + string(c.ID) }

func (c *CreateJoinToken) apply(tx *Tx) (string, error) {
	row := c.Token
	if err := checkID(cairn.KindToken, row.ID); err != nil {
		return "", err
	}
	if err := checkID(cairn.KindNode, row.Node); err != nil {
		return "", err
	}
	if err := cairn.CheckName("node", row.Name); err != nil {
		return "", err
	}
	switch {
	case len(row.SecretHash) != sha256.Size:
		return "", cause(cairn.ErrInvalid, "token for node %s: the secret's hash has %d bytes, want %d", row.Name, len(row.SecretHash), sha256.Size)
	case row.ExpiresAt <= tx.meta.At:
		return "", cause(cairn.ErrInvalid, "token for node %s: would have expired when it is made", row.Name)
	case tx.Token(row.ID) != nil:
		return "", cause(cairn.ErrExists, "token %s: exists", row.ID)
	case tx.Node(row.Node) != nil:
		return "", cause(cairn.ErrExists, "token for node %s: node identifier %s is taken", row.Name, row.Node)
	case tx.NodeByName(row.Name) != nil:
		return "", cause(cairn.ErrExists, "token for node %s: a node of that name is a member", row.Name)
	}
	for other := range tx.Tokens() {
		if other.Name == row.Name && (len(other.UsedBy) > 0 || other.ExpiresAt > tx.meta.At) {
			return "", cause(cairn.ErrExists, "token for node %s: token %s is for that name; delete it first", row.Name, other.ID)
		}
	}
	row.UsedBy, row.CreatedAt = nil, tx.meta.At
	put(tx, tx.tokens, &row)
	tx.event("token.created", "", tokenRef(&row), "join token for node %s created", row.Name)
	return string(row.ID), nil
}

func tokenRef(t *cairn.JoinToken) cairn.Ref {
	return cairn.Ref{Kind: cairn.KindToken, ID: string(t.ID), Name: t.Name}
}

func (c *ConsumeJoinToken) apply(tx *Tx) (string, error) {
	token := tx.Token(c.ID)
	switch {
	case token == nil:
		return "", cause(cairn.ErrNotFound, "join token: is not known; it may have been deleted")
	case !bytes.Equal(token.SecretHash, c.SecretHash):
		return "", cause(cairn.ErrDenied, "join token for node %s: wrong secret", token.Name)
	case len(c.KeyHash) != sha256.Size:
		return "", cause(cairn.ErrInvalid, "join token for node %s: the key's hash has %d bytes, want %d", token.Name, len(c.KeyHash), sha256.Size)
	case bytes.Equal(token.UsedBy, c.KeyHash):
		return string(token.Node), nil
	case len(token.UsedBy) > 0:
		return "", cause(cairn.ErrPrecondition, "join token for node %s: was used by another machine; a token works once", token.Name)
	case token.ExpiresAt <= tx.meta.At:
		return "", cause(cairn.ErrPrecondition, "join token for node %s: has expired; make a new one", token.Name)
	}
	row := *token
	row.UsedBy = c.KeyHash
	put(tx, tx.tokens, &row)
	tx.event("token.used", "", tokenRef(&row), "join token for node %s used", row.Name)
	return string(row.Node), nil
}

func (c *DeleteJoinToken) apply(tx *Tx) (string, error) {
	token := tx.Token(c.ID)
	if token == nil {
		return "", missing(cairn.KindToken, c.ID)
	}
	remove(tx, tx.tokens, string(c.ID))
	tx.event("token.deleted", "", tokenRef(token), "join token for node %s deleted", token.Name)
	return string(c.ID), nil
}
