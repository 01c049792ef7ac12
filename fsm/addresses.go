package fsm

import (
	"net/netip"

	"github.com/cairn-storage/cairn"
)

// CreateFencedShare makes a share over NFS whose type fails over by itself. All its replicas must be on nodes that can keep
// clients away from their NFS servers. Address, unless it is empty, is its service address.
type CreateFencedShare struct {
	Create  CreateShare
	Address string
}

// SetServiceAddress gives such a share a service address, or takes it away if Address is empty. Clients that use the old
// one have to mount anew.
type SetServiceAddress struct {
	Share   cairn.ShareID
	Address string
}

func (*CreateFencedShare) op() Op           { return OpCreateFencedShare }
func (c *CreateFencedShare) target() string { return c.Create.target() }

func (*SetServiceAddress) op() Op           { return OpSetServiceAddress }
func (c *SetServiceAddress) target() string { return "share/" + string(c.Share) }

// needsFence reports whether another node may be made the writer of what the server of a kernel serves here.
func needsFence(s *cairn.Share, t *cairn.ShareType) bool {
	return s.Protocol == cairn.ProtocolNFS && t.Failover == cairn.FailoverAuto
}

func (c *CreateFencedShare) apply(tx *Tx) (string, error) { return c.create(tx, "") }

func (c *CreateFencedShare) create(tx *Tx, from cairn.ReplicaID) (string, error) {
	s := &c.Create.Share
	old := tx.ShareByName(s.Project, s.Format, s.Name)
	id, err := c.Create.create(tx, grants{fenced: true, from: from})
	switch {
	case err != nil || c.Address == "":
		return id, err
	case old == nil:
		return id, tx.setAddress(tx.Share(s.ID), c.Address)
	}
	has := ""
	if row := tx.addresses.get(string(old.ID)); row != nil {
		has = row.Address
	}
	if has != c.Address {
		return "", cause(cairn.ErrExists, "%s: exists with another service address: %q, not %q", old.Ref(), has, c.Address)
	}
	return id, nil
}

func (c *SetServiceAddress) apply(tx *Tx) (string, error) {
	share := tx.Share(c.Share)
	switch {
	case share == nil:
		return "", missing(cairn.KindShare, c.Share)
	case share.Status == cairn.StatusDeleting:
		return "", cause(cairn.ErrPrecondition, "%s: is being deleted", share.Ref())
	}
	old := tx.ServiceAddress(share.ID)
	switch {
	case c.Address == "" && !old.IsValid():
		return string(share.ID), nil
	case c.Address == "":
		remove(tx, tx.addresses, string(share.ID))
		tx.event("share.address", share.Project, share.Ref(), "share %s has no service address any more; it was %s", share.Name, old)
	case old.IsValid() && old.String() == c.Address:
		return string(share.ID), nil
	default:
		if err := tx.setAddress(share, c.Address); err != nil {
			return "", err
		}
		tx.event("share.address", share.Project, share.Ref(), "share %s has service address %s", share.Name, c.Address)
	}
	tx.wantOf(tx.Replica(share.Active), nil)
	return string(share.ID), nil
}

// setAddress checks and stores a service address. Two shares with one address could only move together, which nobody promises.
func (tx *Tx) setAddress(share *cairn.Share, text string) error {
	t := tx.Type(share.Type)
	if !needsFence(share, t) {
		return cause(cairn.ErrNotSupported, "%s: a service address is for a share over nfs whose type fails over by itself (failover = auto)", share.Ref())
	}
	prefix, err := netip.ParsePrefix(text)
	address := prefix.Addr()
	switch {
	case err != nil || prefix.String() != text:
		return cause(cairn.ErrInvalid, "service address %q: want an address with the length of its network, such as 10.0.0.9/24", text)
	case !address.IsGlobalUnicast() || address.Is4In6() || prefix.Bits() == 0:
		return cause(cairn.ErrInvalid, "service address %s: clients cannot reach that", text)
	}
	if other := first(tx.addresses.by(addressesByAddress, addressKey(text))); other != nil && other.Share != share.ID {
		return cause(cairn.ErrExists, "service address %s: belongs to %s", text, tx.Share(other.Share).Ref())
	}
	put(tx, tx.addresses, &cairn.ServiceAddress{Share: share.ID, Address: text})
	return nil
}

// addressKey finds an address whatever the length of its network is. Only what was checked is stored.
func addressKey(text string) string {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return text + "\x00"
	}
	return prefix.Addr().String() + "\x00"
}
