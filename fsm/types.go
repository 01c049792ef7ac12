package fsm

import "github.com/cairn-storage/cairn"

// CreateType makes a share type. It succeeds again for the same type.
type CreateType struct{ Type cairn.ShareType }

// DeleteType removes a share type that no share has.
type DeleteType struct{ Name string }

func (*CreateType) op() Op           { return OpCreateType }
func (c *CreateType) target() string { return "type/" + c.Type.Name }

func (*DeleteType) op() Op           { return OpDeleteType }
func (c *DeleteType) target() string { return "type/" + c.Name }
