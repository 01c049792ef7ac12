package zfs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers/calls"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// op is one call on the pool: its context, and the replica that it is about.
type op struct {
	*Pool
	ctx context.Context
	id  cairn.ReplicaID
}

// call runs f, which may change the replica. One runs at a time for each ID.
func call[T any](ctx context.Context, p *Pool, id cairn.ReplicaID, what string, f func(*op) (T, error)) (T, error) {
	return do(ctx, p, string(id), id, what, f)
}

// change is call for what returns no value.
func change(ctx context.Context, p *Pool, id cairn.ReplicaID, what string, f func(*op) error) error {
	_, err := call(ctx, p, id, what, func(o *op) (struct{}, error) { return struct{}{}, f(o) })
	return err
}

// look runs f, which only looks. One runs at a time for each ID, so that tools which hang do not pile up. The ID "" is the
// pool itself.
func look[T any](ctx context.Context, p *Pool, id cairn.ReplicaID, what string, f func(*op) (T, error)) (T, error) {
	return do(ctx, p, "look "+string(id), id, what, f)
}

func do[T any](ctx context.Context, p *Pool, key string, id cairn.ReplicaID, what string, f func(*op) (T, error)) (T, error) {
	var none T
	subject := "pool " + string(p.poolID)
	if key != "look " {
		if err := cairn.CheckName("replica", string(id)); err != nil {
			return none, err
		}
		subject = "replica " + string(id)
	}
	value, err := calls.Do(ctx, &p.calls, key, func() (T, error) { return f(&op{Pool: p, ctx: ctx, id: id}) })
	if err != nil {
		return none, fmt.Errorf("%s: %s: %w", subject, what, classify(err))
	}
	return value, nil
}

// classify adds the sentinel for a context that ended between two tools.
func classify(err error) error {
	switch {
	case errors.Is(err, cairn.ErrTimeout), errors.Is(err, cairn.ErrUnknownOutcome), errors.Is(err, cairn.ErrUnavailable):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("outcome unknown, look before trying again: %w: %w", cairn.ErrTimeout, err)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: %w", cairn.ErrUnknownOutcome, err)
	}
	return err
}

// zfs runs a command that changes something.
func (o *op) zfs(args ...string) error {
	_, err := o.query("zfs", args...)
	return err
}

// query runs a tool and gives its failure the meaning that its message has.
func (o *op) query(name string, args ...string) (string, error) {
	return o.run(tool.Cmd{Name: name, Args: args})
}

func (o *op) run(c tool.Cmd) (string, error) {
	result, err := o.runner.Run(o.ctx, c)
	if err != nil {
		return "", diagnose(err)
	}
	return string(result.Stdout), nil
}

// columns are what is asked of everything that is listed. The mountpoint is the last: it may hold anything but a newline.
var columns = []string{
	"name", "type", "mounted", "readonly", "refquota", "used", "available", "referenced", "origin", "receive_resume_token",
	"keystatus", "encryptionroot", "createtxg", "userrefs", "clones", "defer_destroy",
	"cairn:pool", "cairn:id", "cairn:epoch", "cairn:state", "cairn:size", "cairn:thick", "cairn:reserve", "cairn:key",
	"cairn:source", "cairn:adopted", "cairn:released", "cairn:reverted", "cairn:receiving", "cairn:snapshot", "cairn:was",
	"mountpoint",
}

// row is one line of zfs list: values by column. What is not set or has no meaning is "".
type row map[string]string

func (r row) number(column string) int64 {
	n, err := strconv.ParseInt(r[column], 10, 64)
	if err != nil {
		return 0 // "none", or nothing of that kind
	}
	return n
}

// snapshotName is the name of a snapshot without that of its dataset; "" of what is none.
func (r row) snapshotName() string {
	_, name, _ := strings.Cut(r["name"], "@")
	return name
}

// list runs zfs list with all columns.
func (o *op) list(args ...string) ([]row, error) {
	out, err := o.query("zfs", append([]string{"list", "-Hp", "-o", strings.Join(columns, ",")}, args...)...)
	if err != nil {
		return nil, err
	}
	rows, err := parseRows(out)
	if err == nil && len(rows) == 0 {
		err = errors.New("zfs list: succeeded and listed nothing")
	}
	return rows, err
}

func parseRows(out string) ([]row, error) {
	var rows []row
	for line := range strings.Lines(out) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", len(columns))
		if len(fields) != len(columns) {
			return nil, fmt.Errorf("zfs list: line %q has %d columns, not %d", line, len(fields), len(columns))
		}
		r := make(row, len(columns))
		for i, field := range fields {
			if field != "-" {
				r[columns[i]] = field
			}
		}
		rows = append(rows, r)
	}
	return rows, nil
}
