package fsm

import "github.com/cairn-storage/cairn"

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
