package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

var poolView = view[*pb.Pool]{
	ref: poolRef,
	columns: []Column[*pb.Pool]{
		{Header: "POOL", Cell: func(_ format, p *pb.Pool) string { return p.GetName() }},
		{Header: "DRIVER", Cell: func(_ format, p *pb.Pool) string { return p.GetDriver() }},
		{Header: "STATE", Cell: func(_ format, p *pb.Pool) string { return poolState(p) }},
		{Header: "TOTAL", Cell: func(f format, p *pb.Pool) string { return f.size(p.GetTotal()) }},
		{Header: "FREE", Cell: func(f format, p *pb.Pool) string { return f.size(p.GetFree()) }},
		{Header: "PROMISED", Cell: func(f format, p *pb.Pool) string { return f.size(p.GetProvisioned()) }},
		{Header: "PROMISABLE", Cell: func(f format, p *pb.Pool) string { return f.size(p.GetProvisionable()) }},
		{Header: "REPLICAS", Cell: func(_ format, p *pb.Pool) string { return number(p.GetReplicas()) }},
		{Header: "RESERVED", Wide: true, Cell: func(_ format, p *pb.Pool) string { return number(p.GetReservedPercent()) + "%" }},
		{Header: "OVERSUBSCRIPTION", Wide: true, Cell: func(_ format, p *pb.Pool) string { return number(p.GetOverSubscriptionPercent()) + "%" }},
		{Header: "CAPABILITIES", Wide: true, Cell: func(_ format, p *pb.Pool) string { return strings.Join(p.GetCapabilities(), "\n") }},
		{Header: "PROTOCOLS", Wide: true, Cell: func(_ format, p *pb.Pool) string { return strings.Join(p.GetProtocols(), "\n") }},
		{Header: "FAULT", Wide: true, Cell: func(_ format, p *pb.Pool) string { return fault(p.GetFault()) }},
		{Header: "NOTES", Wide: true, Cell: func(_ format, p *pb.Pool) string { return strings.Join(p.GetNotes(), "; ") }},
	},
}

func poolRef(p *pb.Pool) string { return string(cairn.KindPool) + "/" + p.GetName() }

func poolState(p *pb.Pool) string {
	state := "ok"
	if p.GetFrozen() {
		state = "frozen"
	}
	return health(state, p.GetFault())
}

var poolArg = arg{"NODE/POOL", completePools}

func (a *App) pool() *cobra.Command {
	return a.group("pool", "Places for shares", a.poolList(), a.poolShow(), a.poolFreeze(), a.poolThaw())
}

// splitPool splits "node/pool".
func splitPool(path string) (node, pool string, err error) {
	node, pool, ok := strings.Cut(bare(cairn.KindPool, path), "/")
	if !ok || node == "" || pool == "" {
		return "", "", usagef("pool %q: want NODE/POOL, such as n1/data", path)
	}
	return node, pool, nil
}

func (a *App) poolList() *cobra.Command {
	return a.command(spec{
		use: "list", short: "List the pools", takes: prints | reads,
		long: `List the pools. PROMISED is the sum of the sizes of shares; PROMISABLE is how much that may be: what is not reserved, times
the over-subscription.`,
		run: func(ctx context.Context, r *request, _ []string) error {
			answer, err := r.ListPools(ctx, &pb.ListPoolsRequest{Read: r.read()})
			if err != nil {
				return err
			}
			return r.print(poolView.list(answer.GetPools(), "no pools"))
		},
	})
}

func (a *App) poolShow() *cobra.Command {
	return a.command(spec{
		use: "show", args: []arg{poolArg}, short: "Show a pool", takes: prints | reads,
		run: func(ctx context.Context, r *request, args []string) error {
			answer, err := r.GetPool(ctx, &pb.GetPoolRequest{Pool: bare(cairn.KindPool, args[0]), Read: r.read()})
			if err != nil {
				return err
			}
			return r.print(poolView.detail(answer.GetPool()))
		},
	})
}

func (a *App) poolFreeze() *cobra.Command {
	return a.command(spec{
		use: "freeze", args: []arg{poolArg}, short: "Place no new replicas on a pool", takes: prints | mutates,
		long: "Place no new replicas on a pool. What is there is served as before.",
		run: func(ctx context.Context, r *request, args []string) error {
			return freezePool(ctx, r, args[0], false)
		},
	})
}

func (a *App) poolThaw() *cobra.Command {
	return a.command(spec{
		use: "thaw", args: []arg{poolArg}, short: "Place replicas on a pool again", takes: prints | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			return freezePool(ctx, r, args[0], true)
		},
	})
}

func freezePool(ctx context.Context, r *request, pool string, thaw bool) error {
	answer, err := r.FreezePool(ctx, &pb.FreezePoolRequest{Mutation: r.mutation(), Pool: bare(cairn.KindPool, pool), Thaw: thaw})
	if err != nil {
		return err
	}
	verb := "freeze"
	if thaw {
		verb = "thaw"
	}
	r.would("%s %s", verb, poolRef(answer.GetPool()))
	return r.print(poolView.row(answer.GetPool()))
}
