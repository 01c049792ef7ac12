package zfs_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/drivertest"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
	"github.com/cairn-storage/cairn/drivers/zfs"
)

const poolID cairn.PoolID = "node-1/tank"

const gib = 1 << 30

// machine is where zfs and zpool run, with one zpool.
type machine struct {
	zfs.Runner
	zpool    string
	export   func() (repair func() error, err error) // takes the zpool away
	pretends bool                                    // as in drivertest.Harness
	patience time.Duration                           // too
	every    int                                     // too
	recorded *transcript.Recorded                    // fails the test for what the driver runs and no transcript has; nil: does not
	serial   *atomic.Int64
}

func (m machine) run(name string, args ...string) (string, error) {
	result, err := m.Run(context.Background(), tool.Cmd{Name: name, Args: args})
	return string(result.Stdout), err
}

// harness gives every test a dataset of its own.
func (m machine) harness() drivertest.Harness {
	return drivertest.Harness{
		New: func(t *testing.T) (drivertest.Storage, func()) {
			s := storage{machine: m, dataset: fmt.Sprintf("%s/t%d", m.zpool, m.serial.Add(1))}
			return s, func() {
				if _, err := m.run("zfs", "destroy", "-r", s.dataset); err != nil && !strings.Contains(err.Error(), "does not exist") {
					t.Error(err)
				}
			}
		},
		Pretends: m.pretends,
		Patience: m.patience,
		Every:    m.every,
		Data:     data{drivertest.Tree{Except: ".zfs"}},
	}
}

// data looks into a root before it looks at it: a snapshot is mounted when somebody enters it.
type data struct{ drivertest.Tree }

func (d data) Fingerprint(root string) (string, error) {
	if _, err := os.Stat(root + "/."); err != nil {
		return "", err
	}
	return d.Tree.Fingerprint(root)
}

// storage is a dataset for a pool, for package drivertest.
type storage struct {
	machine
	dataset string
}

func (s storage) config(step drivertest.Step) zfs.Config {
	if s.recorded != nil {
		s.Runner = s.recorded
	}
	return zfs.Config{Dataset: s.dataset, PoolID: poolID, Runner: stepper{s.machine, step}, Logger: slog.New(slog.DiscardHandler)}
}

func (s storage) Open(ctx context.Context, step drivertest.Step) (drivers.Pool, error) {
	p, err := zfs.Open(ctx, s.config(step))
	if err != nil {
		return nil, err // not a nil *zfs.Pool in an interface
	}
	return p, nil
}

func (s storage) Close(p drivers.Pool) error { return p.(*zfs.Pool).Close() }

func (s storage) Plant(name string) (string, error) {
	if _, err := s.run("zfs", "create", s.dataset+"/"+name); err != nil {
		return "", err
	}
	return s.dir(name), nil
}

// dir is where a dataset is mounted.
func (s storage) dir(name string) string {
	root, err := s.run("zfs", "get", "-Hp", "-o", "value", "mountpoint", s.dataset+"/"+name)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(root)
}

func (s storage) PlantSnapshot(id cairn.ReplicaID, name string) error {
	_, err := s.run("zfs", "snapshot", fmt.Sprintf("%s/%s@%s", s.dataset, id, name))
	return err
}

func (s storage) Break() (func() error, error) { return s.export() }

// Survey accounts for every dataset, snapshot and hold, and for every property of ours on what is not ours.
func (s storage) Survey(objects []drivers.Object) (map[string]string, []string, error) {
	known, ready := make(map[string]bool), make(map[string]bool)
	for _, object := range objects {
		ready[string(object.ID)] = object.Ready
		known[string(object.ID)] = true
		for _, snap := range object.Snapshots {
			known[string(object.ID)+"@"+string(snap.ID)] = true
		}
	}
	out, err := s.run("zfs", "list", "-Hp", "-r", "-t", "filesystem,volume,snapshot", "-o", "name,cairn:id,cairn:state,cairn:epoch,userrefs,defer_destroy,cairn:snapshot,cairn:was,cairn:receiving,mountpoint", s.dataset)
	if err != nil {
		return nil, nil, err
	}
	keeps := make(map[string]bool) // which have snapshots
	for line := range strings.Lines(out) {
		if at, _, ok := strings.Cut(strings.TrimPrefix(line, s.dataset+"/"), "@"); ok {
			keeps[at] = true
		}
	}
	foreign, debris := make(map[string]string), []string(nil)
	for line := range strings.Lines(out) {
		column := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		name, id, mark, refs := strings.TrimPrefix(column[0], s.dataset), column[1], strings.Join(column[2:4], ""), column[4]
		name = strings.TrimPrefix(name, "/")
		at, snap, isSnapshot := strings.Cut(name, "@")
		state := column[2]
		switch {
		case name == "":
		case known[name] && refs != "0" && refs != "-":
			debris = append(debris, name+" is held")
		case known[name], known[id] && !ready[id] && (name == id+"-in" || name == id+"-in/data"):
		case known[id] && !isSnapshot && state == "aside" && keeps[name]:
		case known[id] && isSnapshot && (known[id+"@"+snap] || column[5] == "on"): // goes with what depends on it
		case isSnapshot && column[7] != "-" && known[id+"@"+path.Base(column[7])]:
		case known[id] && isSnapshot && column[6] == "-" && column[7] == "-" && column[8] != snap:
			foreign[name] = filepath.Join(s.dir(at), ".zfs", "snapshot", snap)
		case id == "-" && !isSnapshot && mark == "--":
			foreign[name] = column[9]
		default:
			debris = append(debris, name)
		}
	}
	return foreign, debris, nil
}

// stepper passes every command that changes something through a step.
type stepper struct {
	machine
	step drivertest.Step
}

func (s stepper) Run(ctx context.Context, c tool.Cmd) (result tool.Result, err error) {
	if readOnly(c) {
		return s.machine.Run(ctx, c)
	}
	stepErr := s.step(c.String(), func() error {
		result, err = s.machine.Run(ctx, c)
		return err
	})
	return result, stepErr
}

func (s stepper) Stream(ctx context.Context, c tool.Cmd, stdin io.Reader, stdout io.Writer) (result tool.Result, err error) {
	if readOnly(c) {
		return s.machine.Stream(ctx, c, stdin, stdout)
	}
	stepErr := s.step(c.String(), func() error {
		result, err = s.machine.Stream(ctx, c, stdin, stdout)
		return err
	})
	return result, stepErr
}

func readOnly(c tool.Cmd) bool {
	return c.Name == "cat" || slices.Contains([]string{"list", "get", "holds", "send", "sync"}, c.Args[0])
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
