package fsm

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/cairn-storage/cairn"
)

// Op is the number of a command in the log. Numbers are append-only: one that was ever released keeps its meaning and the
// fields of its command for good.
type Op uint8

// The numbers of all commands. 255 is not for commands: it marks a bundle.
const (
	OpInitCluster      Op = 1
	OpCheckpoint       Op = 2
	OpCreateJoinToken  Op = 3
	OpConsumeJoinToken Op = 4
	OpDeleteJoinToken  Op = 5
	OpRegisterNode     Op = 6
	OpSetNodeState     Op = 7
	OpDrainNode        Op = 8
	OpRemoveNode       Op = 9
	OpRegisterPools    Op = 10
	OpFreezePool       Op = 11
	OpCreateUser       Op = 12
	OpDeleteUser       Op = 13
	OpCreateType       Op = 14
	OpDeleteType       Op = 15
	OpSetQuota         Op = 16
	OpChangeQuota      Op = 17
	OpCreateShare      Op = 20
	OpDeleteShare      Op = 21
	OpResizeShare      Op = 22
	OpRevertShare      Op = 23
	OpUpdateShare      Op = 24
	OpSetSize          Op = 25
	OpUnmanageShare    Op = 27
	OpCancelTask       Op = 28
	OpStopTask         Op = 29
	OpCreateSnapshot   Op = 30
	OpDeleteSnapshot   Op = 31
	OpManageSnapshot   Op = 32
	OpUnmanageSnapshot Op = 33
	OpAllowAccess      Op = 40
	OpDenyAccess       Op = 41
	OpSetAccess        Op = 42
	OpReportReplica    Op = 50
	OpReportReplicas   Op = 51
	OpAddReplica       Op = 60
	OpRemoveReplica    Op = 61
	OpResyncReplica    Op = 62
	OpPromoteShare     Op = 63
	OpFailoverShares   Op = 64

	OpCreateFromSnapshot Op = 26
	OpCreateFencedShare  Op = 70
	OpSetServiceAddress  Op = 71
)

// ops is the one place that says which command a number stands for.
var ops = map[Op]func() Command{
	OpInitCluster:      func() Command { return new(InitCluster) },
	OpCheckpoint:       func() Command { return new(Checkpoint) },
	OpCreateJoinToken:  func() Command { return new(CreateJoinToken) },
	OpConsumeJoinToken: func() Command { return new(ConsumeJoinToken) },
	OpDeleteJoinToken:  func() Command { return new(DeleteJoinToken) },
	OpRegisterNode:     func() Command { return new(RegisterNode) },
	OpSetNodeState:     func() Command { return new(SetNodeState) },
	OpDrainNode:        func() Command { return new(DrainNode) },
	OpRemoveNode:       func() Command { return new(RemoveNode) },
	OpRegisterPools:    func() Command { return new(RegisterPools) },
	OpFreezePool:       func() Command { return new(FreezePool) },
	OpCreateUser:       func() Command { return new(CreateUser) },
	OpDeleteUser:       func() Command { return new(DeleteUser) },
	OpCreateType:       func() Command { return new(CreateType) },
	OpDeleteType:       func() Command { return new(DeleteType) },
	OpSetQuota:         func() Command { return new(SetQuota) },
	OpChangeQuota:      func() Command { return new(ChangeQuota) },
	OpCreateShare:      func() Command { return new(CreateShare) },
	OpDeleteShare:      func() Command { return new(DeleteShare) },
	OpResizeShare:      func() Command { return new(ResizeShare) },
	OpRevertShare:      func() Command { return new(RevertShare) },
	OpUpdateShare:      func() Command { return new(UpdateShare) },
	OpSetSize:          func() Command { return new(SetSize) },
	OpUnmanageShare:    func() Command { return new(UnmanageShare) },
	OpCancelTask:       func() Command { return new(CancelTask) },
	OpStopTask:         func() Command { return new(StopTask) },
	OpCreateSnapshot:   func() Command { return new(CreateSnapshot) },
	OpDeleteSnapshot:   func() Command { return new(DeleteSnapshot) },
	OpManageSnapshot:   func() Command { return new(ManageSnapshot) },
	OpUnmanageSnapshot: func() Command { return new(UnmanageSnapshot) },
	OpAllowAccess:      func() Command { return new(AllowAccess) },
	OpDenyAccess:       func() Command { return new(DenyAccess) },
	OpSetAccess:        func() Command { return new(SetAccess) },
	OpReportReplica:    func() Command { return new(ReportReplica) },
	OpReportReplicas:   func() Command { return new(ReportReplicas) },
	OpAddReplica:       func() Command { return new(AddReplica) },
	OpRemoveReplica:    func() Command { return new(RemoveReplica) },
	OpResyncReplica:    func() Command { return new(ResyncReplica) },
	OpPromoteShare:     func() Command { return new(PromoteShare) },
	OpFailoverShares:   func() Command { return new(FailoverShares) },

	OpCreateFromSnapshot: func() Command { return new(CreateFromSnapshot) },
	OpCreateFencedShare:  func() Command { return new(CreateFencedShare) },
	OpSetServiceAddress:  func() Command { return new(SetServiceAddress) },
}

// Command is one change of the replicated state. The commands of this package are all there are.
type Command interface {
	op() Op
	// target names what the command is about in words that stay the same when the request is repeated, so that an
	// idempotency token cannot be used for something else.
	target() string
	// apply checks every rule and makes the change, or returns an error that wraps a sentinel of package cairn.
	apply(tx *Tx) (id string, err error)
}

// Meta is who asked for a command, and when.
type Meta struct {
	Token string // idempotency token; "" for commands that nobody repeats, such as reports
	At    int64  // Unix nanoseconds, stamped by the proposer: the only clock that the machine knows
	Actor string // "user/alice", "node/<id>" or "cluster"
}

// CurrentVersion is the newest version of the command set that this program understands.
const CurrentVersion = BundleVersion

// Version returns the version of the command set that introduced the command. It may be proposed only when
// View.CommandVersion is at least that.
func Version(c Command) uint32 {
	switch c.op() {
	case OpSetSize, OpStopTask, OpManageSnapshot, OpUnmanageSnapshot, OpCreateFencedShare, OpSetServiceAddress, OpChangeQuota, OpCreateFromSnapshot:
		return 2
	}
	return 1
}

// Encode renders a command for the log: the op number, then the msgpack array [Meta, Command].
func Encode(meta Meta, c Command) ([]byte, error) {
	var buf bytes.Buffer
	buf.WriteByte(byte(c.op()))
	enc := newEncoder(&buf)
	if err := enc.EncodeArrayLen(2); err != nil {
		return nil, fmt.Errorf("command %T: %w", c, err)
	}
	if err := enc.Encode(&meta); err != nil {
		return nil, fmt.Errorf("command %T: %w", c, err)
	}
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("command %T: %w", c, err)
	}
	return buf.Bytes(), nil
}

// Decode reads what Encode wrote. Bytes that Encode cannot have written are cairn.ErrCorrupt, and an op number that this
// program does not know is cairn.ErrUpgrade.
func Decode(data []byte) (Meta, Command, error) {
	if len(data) == 0 {
		return Meta{}, nil, fmt.Errorf("command: empty: %w", cairn.ErrCorrupt)
	}
	construct, ok := ops[Op(data[0])]
	if !ok {
		return Meta{}, nil, fmt.Errorf("command: op %d is not known to this version: %w", data[0], cairn.ErrUpgrade)
	}
	meta, c := Meta{}, construct()
	if err := decodePair(data[1:], &meta, c); err != nil {
		return Meta{}, nil, fmt.Errorf("command %T: %w", c, err)
	}
	return meta, c, nil
}

func decodePair(data []byte, first, second any) error {
	if err := wellFormed(data); err != nil {
		return err
	}
	dec := msgpack.GetDecoder()
	defer msgpack.PutDecoder(dec)
	dec.Reset(bytes.NewReader(data))
	if n, err := dec.DecodeArrayLen(); err != nil || n != 2 {
		return fmt.Errorf("want an array of 2: %w", cairn.ErrCorrupt)
	}
	for _, v := range []any{first, second} {
		if err := dec.Decode(v); err != nil {
			return fmt.Errorf("%w: %w", cairn.ErrCorrupt, err)
		}
	}
	return nil
}

// newEncoder sets the one encoding of commands and rows. Structs are arrays, so a field costs no name; map keys are sorted
// and integers are as short as possible, so equal values have equal bytes.
func newEncoder(w *bytes.Buffer) *msgpack.Encoder {
	enc := msgpack.NewEncoder(w)
	enc.UseArrayEncodedStructs(true)
	enc.SetSortMapKeys(true)
	enc.UseCompactInts(true)
	return enc
}
