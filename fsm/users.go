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

func (c *CreateUser) apply(tx *Tx) (string, error) {
	row := c.User
	if err := checkUser(&row); err != nil {
		return "", err
	}
	row.CreatedAt = tx.meta.At
	ref := cairn.Ref{Kind: cairn.KindUser, Name: row.Name}
	if old := tx.User(row.Name); old != nil {
		if old.Role != row.Role || old.Project != row.Project {
			return "", cause(cairn.ErrExists, "user %s: exists with role %s and project %q", row.Name, old.Role, old.Project)
		}
		row.CreatedAt = old.CreatedAt
		put(tx, tx.users, &row)
		tx.event("user.renewed", row.Project, ref, "certificate of user %s renewed", row.Name)
		return row.Name, nil
	}
	put(tx, tx.users, &row)
	tx.event("user.created", row.Project, ref, "user %s created with role %s", row.Name, row.Role)
	return row.Name, nil
}

func checkUser(u *cairn.User) error {
	if err := cairn.CheckName("user", u.Name); err != nil {
		return err
	}
	switch u.Role {
	case cairn.UserAdmin, cairn.UserOperator:
		if u.Project != "" {
			return cause(cairn.ErrInvalid, "user %s: role %s is for every project", u.Name, u.Role)
		}
	case cairn.UserMember:
		if u.Project == "" {
			return cause(cairn.ErrInvalid, "user %s: role %s needs a project", u.Name, u.Role)
		}
	case cairn.UserReader:
	default:
		return cause(cairn.ErrInvalid, "user %s: role %q: want admin, operator, member or reader", u.Name, u.Role)
	}
	if u.Project == "" {
		return nil
	}
	return cairn.CheckName("project", string(u.Project))
}

func (c *DeleteUser) apply(tx *Tx) (string, error) {
	user := tx.User(c.Name)
	if user == nil {
		return "", missing(cairn.KindUser, c.Name)
	}
	if user.Role == cairn.UserAdmin {
		admins := 0
		for u := range tx.Users() {
			if u.Role == cairn.UserAdmin {
				admins++
			}
		}
		if admins == 1 {
			return "", cause(cairn.ErrPrecondition, "user %s: is the last administrator; create another one first", c.Name)
		}
	}
	remove(tx, tx.users, c.Name)
	tx.event("user.deleted", user.Project, cairn.Ref{Kind: cairn.KindUser, Name: c.Name}, "user %s deleted", c.Name)
	return c.Name, nil
}
