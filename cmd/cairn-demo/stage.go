package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn/chaos/dav"
	"github.com/cairn-storage/cairn/chaos/local"
)

// stage is the cluster, and where is told what is done with it.
type stage struct {
	out     io.Writer
	cluster *local.Cluster
}

func (s stage) printf(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// cairn runs the command line, shows what it runs, and reads its JSON into answer, if that is not nil.
func (s stage) cairn(ctx context.Context, answer proto.Message, args ...string) error {
	s.printf("      $ cairn %s", strings.Join(args, " "))
	out, err := s.cluster.Run(ctx, append(args, "-o", "json")...)
	if err != nil || answer == nil {
		return err
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(out, answer); err != nil {
		return fmt.Errorf("cairn %s: answer: %w", strings.Join(args, " "), err)
	}
	return nil
}

// dial makes a client of a share or snapshot.
func (s stage) dial(url, password string, connections int) (*dav.Client, error) {
	ca, err := s.cluster.CA()
	if err != nil {
		return nil, err
	}
	return dav.New(dav.Config{URL: url, CA: ca, User: userName, Password: password, Connections: connections})
}
