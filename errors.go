package cairn

import "errors"

// Sentinel errors. Every error that reaches a user wraps exactly one of them; rpc has the one table that turns each
// into a gRPC code and back.
var (
	// ErrInvalid: the request can never succeed as it is written.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound: the named object certainly does not exist. Never used for "could not find out".
	ErrNotFound = errors.New("not found")
	// ErrExists: an object of that name or identity exists with another specification.
	ErrExists = errors.New("already exists")
	// ErrBusy: another task holds the share's lock; the message names it.
	ErrBusy = errors.New("busy")
	// ErrPrecondition: the object is in a state that forbids the operation.
	ErrPrecondition = errors.New("precondition not met")
	// ErrInUse: something still depends on the object (snapshots, clones, open files, replicas).
	ErrInUse = errors.New("in use")
	// ErrQuota: the project's quota would be exceeded.
	ErrQuota = errors.New("quota exceeded")
	// ErrCapacity: no pool has the capacity or the capability that was asked for.
	ErrCapacity = errors.New("no capacity")
	// ErrNoSpace: the storage itself is full (ENOSPC, EDQUOT, size limit of the share).
	ErrNoSpace = errors.New("no space left")
	// ErrDataLoss: the operation would destroy data that is in use.
	ErrDataLoss = errors.New("would lose data")
	// ErrStale: an older epoch or generation than the object's; whoever sent it has been replaced.
	ErrStale = errors.New("stale")
	// ErrNotSupported: the driver, the pool or the share type does not have the capability.
	ErrNotSupported = errors.New("not supported")
	// ErrDenied: the caller is known and may not do this.
	ErrDenied = errors.New("permission denied")
	// ErrUnauthenticated: the caller is not known.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrUnavailable: the cluster cannot decide now (no leader, no quorum, node away). Nothing was changed.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnknownOutcome: the request may or may not have been committed; retry with the same token.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrTimeout: a deadline passed. Of a driver call the outcome is unknown: look before trying again.
	ErrTimeout = errors.New("timed out")
	// ErrUpgrade: some node is too old to understand the command.
	ErrUpgrade = errors.New("upgrade pending")
	// ErrCorrupt: stored bytes fail their check. Never repaired silently.
	ErrCorrupt = errors.New("corrupt")
)

// Sentinels lists every sentinel once, for tables that must be complete.
func Sentinels() []error {
	return []error{
		ErrInvalid, ErrNotFound, ErrExists, ErrBusy, ErrPrecondition, ErrInUse, ErrQuota, ErrCapacity, ErrNoSpace,
		ErrDataLoss, ErrStale, ErrNotSupported, ErrDenied, ErrUnauthenticated, ErrUnavailable, ErrUnknownOutcome,
		ErrTimeout, ErrUpgrade, ErrCorrupt,
	}
}
