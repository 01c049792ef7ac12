package fence

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Keeper is an exporter that serves what must be fenced behind a gate, and keeps the gate and service addresses alive.
//
//	absent   nothing that must be fenced is served, and there is no table: clients of other shares depend on no lease
//	closed   something may be reachable that another node has taken over: nobody is let through
//	open     the gate has been open, without a gap, since all of it was found to be this node's under a lease
//
// Only closed -> open needs a proof. While the gate is open the lease has not ended, so nothing was taken over.
type Keeper struct {
	config Config
	fit    chan struct{} // closed when this machine can have a gate

	// turn is held while the gate changes. The fields below it are its own.
	turn    sync.Mutex
	state   state
	renewAt time.Time
	lookAt  time.Time // when the table is next compared with what was made
	trouble string    // what was logged last

	books    sync.Mutex
	unfit    error // why this machine cannot have a gate, for all that is known
	entering map[drivers.ExportID]drivers.ExportSpec
	// fenced are the exports that may be reachable and must be fenced, with the service address that is to be held for them.
	fenced map[drivers.ExportID]netip.Prefix
}

type state int

const (
	absent state = iota
	closed
	open
)

var _ drivers.Exporter = (*Keeper)(nil)

const lookEvery = 5 * time.Second

// NewKeeper takes over what an earlier process has left: what it served and must be fenced is behind a closed gate when this
// returns, and withdrawn if there can be none.
func NewKeeper(ctx context.Context, config Config) (*Keeper, error) {
	if config.Every <= 0 {
		config.Every = 100 * time.Millisecond
	}
	k := &Keeper{config: config, fit: make(chan struct{}), entering: make(map[drivers.ExportID]drivers.ExportSpec), fenced: make(map[drivers.ExportID]netip.Prefix)}
	if k.unfit = config.Gate.Check(ctx); k.unfit == nil {
		close(k.fit)
	}
	left, err := k.underFence(ctx)
	if err != nil {
		return nil, fmt.Errorf("fence: %w", err)
	}
	for _, spec := range left {
		k.fenced[spec.ID] = spec.Address
	}
	switch {
	case k.unfit == nil && len(left) > 0:
		k.state = closed
		err = config.Gate.Make(ctx, false)
	case k.unfit == nil:
		err = config.Gate.Remove(ctx)
	default:
		for _, spec := range left {
			err = errors.Join(err, k.Unexport(ctx, spec.ID))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("fence: %w", err)
	}
	return k, nil
}

// Unfit is why this node can fence nobody, nil if it can.
func (k *Keeper) Unfit() error {
	k.books.Lock()
	defer k.books.Unlock()
	return k.unfit
}

// Fit is closed when this node can fence, at once or later.
func (k *Keeper) Fit() <-chan struct{} { return k.fit }

// Run keeps the gate until the context ends.
func (k *Keeper) Run(ctx context.Context) {
	ticker := time.NewTicker(k.config.Every)
	defer ticker.Stop()
	for {
		k.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// look takes the step that is due.
func (k *Keeper) look(ctx context.Context) {
	if k.Unfit() != nil {
		k.checkAgain(ctx)
		return
	}
	if timeout := k.step(ctx); timeout > 0 {
		for address := range k.addresses() {
			if err := k.config.Addresses.Hold(ctx, address, timeout, func() bool { return k.addresses()[address] }); err != nil {
				k.config.Logger.Warn("service address is not held", "address", address, "error", err)
			}
		}
	}
}

// checkAgain looks from time to time whether this machine can have a gate after all: a tool that failed when the process began, or was too
// slow, does not say that it never will work.
func (k *Keeper) checkAgain(ctx context.Context) {
	k.turn.Lock()
	defer k.turn.Unlock()
	now := time.Now()
	if now.Before(k.lookAt) {
		return
	}
	k.lookAt = now.Add(lookEvery)
	err := k.config.Gate.Check(ctx)
	if err == nil {
		err = k.config.Gate.Remove(ctx) // what the last process has left; nothing that must be fenced is served
	}
	k.books.Lock()
	k.unfit = err
	k.books.Unlock()
	if err == nil {
		k.config.Logger.Info("shares over NFS can fail over from this node: it can have a gate after all")
		close(k.fit)
	}
}

// step returns for how long the gate has been opened anew, 0 if it has not.
func (k *Keeper) step(ctx context.Context) time.Duration {
	k.turn.Lock()
	defer k.turn.Unlock()
	var timeout time.Duration
	var err error
	switch beside := k.beside(); {
	case k.state == absent:
		return 0
	case k.idle():
		err = k.disarm(ctx)
	case beside != nil:
		err = k.withdraw(ctx, beside)
	case k.state == open && k.config.Lease() <= 0:
		err = k.shut(ctx)
	case k.state == open:
		timeout, err = k.renew(ctx)
	case k.config.Lease() > 0:
		timeout, err = k.reopen(ctx)
	}
	k.report(ctx, err)
	if err != nil {
		return 0
	}
	return timeout
}

// report logs what is wrong once, and not again before it has changed.
func (k *Keeper) report(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != k.trouble && ctx.Err() == nil {
		k.config.Logger.Warn("clients of NFS are not let through, or not for long", "error", err)
	}
	k.trouble = text
}

// shut closes the gate because the lease is over; the kernel has done it, or is about to.
func (k *Keeper) shut(ctx context.Context) error {
	if err := k.config.Gate.Shut(ctx); err != nil && !errors.Is(err, errLost) {
		return err
	}
	k.state = closed
	k.config.Logger.Warn("gate is closed: this node holds no lease", "exports", k.count())
	for address := range k.addresses() {
		if err := k.config.Addresses.Drop(ctx, address); err != nil {
			k.config.Logger.Warn("service address is not taken away; it ends by itself within seconds", "address", address, "error", err)
		}
	}
	return nil
}

func (k *Keeper) count() int {
	k.books.Lock()
	defer k.books.Unlock()
	return len(k.fenced)
}

// beside is the way round the gate that the server has got since it was armed, nil if there is none that is known.
func (k *Keeper) beside() error {
	if k.state == absent {
		return nil
	}
	if err := k.config.Gate.CheckPorts(); errors.Is(err, cairn.ErrNotSupported) {
		return err
	}
	return nil
}

// withdraw takes away what is behind a gate that clients can go round, until there is nothing left or the gate is enough again.
func (k *Keeper) withdraw(ctx context.Context, why error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := k.config.Gate.Shut(ctx); err != nil && !errors.Is(err, errLost) {
		return errors.Join(why, err)
	}
	k.state = closed
	specs, err := k.underFence(ctx)
	for _, spec := range specs {
		err = errors.Join(err, k.Unexport(ctx, spec.ID))
	}
	return errors.Join(fmt.Errorf("gate: shares that must be fenced are not served any more: %w", why), err)
}

// renew keeps an open gate open. One that is closed in spite of that, because we were too late or somebody has changed the
// table, is opened like any other.
func (k *Keeper) renew(ctx context.Context) (time.Duration, error) {
	now := time.Now()
	if now.Before(k.renewAt) {
		return 0, nil
	}
	if err := k.trust(ctx, now); err != nil {
		return 0, err
	}
	timeout, err := k.config.Gate.Renew(ctx, k.config.Lease)
	if errors.Is(err, errLost) {
		k.state = closed
	}
	return k.opened(timeout, err)
}

// trust looks from time to time whether the table is what was made, and the server behind it the one that it was made for.
func (k *Keeper) trust(ctx context.Context, now time.Time) error {
	if !now.After(k.lookAt) {
		return nil
	}
	k.lookAt = now.Add(lookEvery)
	if whole, err := k.config.Gate.Whole(ctx); err != nil {
		return err
	} else if !whole {
		k.state = closed
		return fmt.Errorf("somebody has changed or removed table inet %s of the packet filter; it is made anew: %w", k.config.Gate.Table, cairn.ErrUnavailable)
	}
	if err := k.foreign(); err != nil {
		k.state = closed
		return errors.Join(fmt.Errorf("gate: %w", err), k.config.Gate.Shut(ctx))
	}
	return nil
}

// foreign is why the server behind the gate is not to be trusted, nil if it is the exporter's own.
func (k *Keeper) foreign() error {
	if k.config.Foreign == nil {
		return nil
	}
	return k.config.Foreign()
}

// opened plans the next renewal.
func (k *Keeper) opened(timeout time.Duration, err error) (time.Duration, error) {
	if err != nil {
		return 0, err
	}
	k.renewAt = time.Now().Add(timeout / 3)
	return timeout, nil
}

// reopen opens the gate if what is behind it is this node's.
func (k *Keeper) reopen(ctx context.Context) (time.Duration, error) {
	if whole, err := k.config.Gate.Whole(ctx); err != nil {
		return 0, err
	} else if !whole {
		if err := k.config.Gate.Make(ctx, false); err != nil {
			return 0, err
		}
	}
	timeout, err := k.opened(k.config.Gate.Open(ctx, k.config.Lease, k.verify))
	if err != nil {
		return 0, err
	}
	k.state, k.lookAt = open, time.Now().Add(lookEvery)
	k.config.Logger.Info("gate is open", "exports", k.count())
	return timeout, nil
}

// verify returns nil if everything that needs the gate is behind it, and this node's to serve. The gate's own ticket bounds for how long that
// is good.
func (k *Keeper) verify(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := errors.Join(k.config.Gate.CheckPorts(), k.foreign()); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	if err := k.config.Settle(ctx); err != nil {
		return fmt.Errorf("gate: what the cluster has decided is not known: %w", err)
	}
	specs, err := k.underFence(ctx)
	if err != nil {
		return fmt.Errorf("gate: what is served is not known: %w", err)
	}
	for _, spec := range specs {
		if err := k.config.Guard.Check(spec.ID.Replica, spec.Epoch); err != nil {
			return fmt.Errorf("gate: share %s is still served here: %w", spec.Share, err)
		}
	}
	return nil
}

// arm makes the gate for the first export that needs it. It is open from the beginning, or clients of other shares would notice.
func (k *Keeper) arm(ctx context.Context) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	if k.state != absent {
		return k.beside()
	}
	if err := k.config.Gate.Make(ctx, true); err != nil {
		return err
	}
	_, err := k.opened(k.config.Gate.Open(ctx, k.config.Lease, k.verify))
	if err != nil {
		return errors.Join(err, k.config.Gate.Remove(ctx))
	}
	k.state, k.lookAt = open, time.Now().Add(lookEvery)
	return nil
}

// disarm takes the gate away when nothing needs it any more.
func (k *Keeper) disarm(ctx context.Context) error {
	specs, err := k.underFence(ctx)
	if err != nil {
		return err
	}
	if len(specs) > 0 {
		k.books.Lock()
		defer k.books.Unlock()
		for _, spec := range specs {
			if _, known := k.fenced[spec.ID]; !known {
				k.fenced[spec.ID] = spec.Address
			}
		}
		return nil
	}
	if err := k.config.Gate.Remove(ctx); err != nil {
		return err
	}
	k.state = absent
	return nil
}
