package fsm

import "github.com/cairn-storage/cairn"

// CreateUser records a client certificate. For a user that exists with the same role and project it is a renewal.
type CreateUser struct{ User cairn.User }

// DeleteUser revokes a user's certificate.
type DeleteUser struct{ Name string }

func (*CreateUser) op() Op           { return OpCreateUser }
func (c *CreateUser) target() string { return "user/" + c.User.Name }

func (*DeleteUser) op() Op           { return OpDeleteUser }
func (c *DeleteUser) target() string { return "user/" + c.Name }
