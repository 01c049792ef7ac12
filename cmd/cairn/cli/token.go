package cli

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

var tokenView = view[*pb.NodeToken]{
	ref: func(t *pb.NodeToken) string { return string(cairn.KindToken) + "/" + t.GetId() },
	columns: []Column[*pb.NodeToken]{
		{Header: "NODE", Cell: func(_ format, t *pb.NodeToken) string { return t.GetName() }},
		{Header: "EXPIRES", Cell: func(f format, t *pb.NodeToken) string { return f.age(t.GetExpiresAt()) }},
		{Header: "ID", Cell: func(_ format, t *pb.NodeToken) string { return t.GetId() }},
	},
}

func (a *App) nodeToken() *cobra.Command {
	return a.group("token", "Tokens that let machines join", a.tokenCreate(), a.tokenList(), a.tokenDelete())
}

func (a *App) tokenCreate() *cobra.Command {
	var name string
	var ttl time.Duration
	cmd := a.command(spec{
		use: "create", short: "Make a token that lets one machine join, once",
		long: `Make a token that lets one machine join under the given name, once. It pins the cluster's CA, so the machine cannot be led
astray. It is a secret, and shown this once: stdout gets nothing else.`,
		example: "cairn node token create --name n2 --ttl 30m",
		takes:   prints | mutates,
		run: func(ctx context.Context, r *request, _ []string) error {
			return createToken(ctx, r, name, ttl)
		},
	})
	cmd.Flags().StringVar(&name, "name", "", "`NAME` of the node to be")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is good for, at most 24h")
	return cmd
}

func createToken(ctx context.Context, r *request, name string, ttl time.Duration) error {
	if name == "" {
		return usagef("node token: --name is missing; give the name of the node to be, such as --name n2")
	}
	if err := cairn.CheckName("node", name); err != nil {
		return err
	}
	if ttl < time.Second {
		return usagef("node token: --ttl %s: must be at least 1s", ttl)
	}
	answer, err := r.CreateNodeToken(ctx, &pb.CreateNodeTokenRequest{Mutation: r.mutation(), Name: name, TtlSeconds: int64(ttl / time.Second)})
	if err != nil {
		return err
	}
	if !r.would("make a token for node/%s", name) {
		r.notef("for node/%s, once, within %s; on that machine: cairn node join TOKEN --config FILE", name, humane(ttl))
	}
	return r.print(result{
		refs: []string{string(cairn.KindToken) + "/" + answer.GetId()}, messages: []proto.Message{answer},
		text: func(out *bytes.Buffer, _ printer) {
			if answer.GetToken() != "" {
				fmt.Fprintln(out, answer.GetToken())
			}
		},
	})
}

func (a *App) tokenList() *cobra.Command {
	return a.command(spec{
		use: "list", short: "List the tokens that can still be used", takes: prints | reads,
		run: func(ctx context.Context, r *request, _ []string) error {
			answer, err := r.ListNodeTokens(ctx, &pb.ListNodeTokensRequest{Read: r.read()})
			if err != nil {
				return err
			}
			return r.print(tokenView.list(answer.GetTokens(), "no open tokens"))
		},
	})
}

func (a *App) tokenDelete() *cobra.Command {
	return a.command(spec{
		use: "delete", args: []arg{{"ID", completeTokens}}, short: "Take a token back", takes: prints | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			id := bare(cairn.KindToken, args[0])
			answer, err := r.DeleteNodeToken(ctx, &pb.DeleteNodeTokenRequest{Mutation: r.mutation(), Id: id})
			if err != nil {
				return err
			}
			ref := string(cairn.KindToken) + "/" + id
			r.would("delete %s", ref)
			return r.print(sentence(ref, ref+" "+r.decided("deleted"), answer))
		},
	})
}
