package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

var clusterView = view[*pb.GetClusterStatusResponse]{
	ref: func(c *pb.GetClusterStatusResponse) string { return string(cairn.KindCluster) + "/" + c.GetName() },
	columns: []Column[*pb.GetClusterStatusResponse]{
		{Header: "CLUSTER", Cell: func(_ format, c *pb.GetClusterStatusResponse) string { return c.GetName() }},
		{Header: "ID", Cell: func(_ format, c *pb.GetClusterStatusResponse) string { return c.GetId() }},
		{Header: "LEADER", Cell: func(_ format, c *pb.GetClusterStatusResponse) string {
			if c.GetLeader() == "" {
				return "none: nothing can be changed now"
			}
			return c.GetLeader()
		}},
		{Header: "TERM", Cell: func(_ format, c *pb.GetClusterStatusResponse) string { return number(c.GetTerm()) }},
		{Header: "ANSWERED-BY", Cell: func(_ format, c *pb.GetClusterStatusResponse) string { return c.GetAnsweredBy() }},
		{Header: "APPLIED", Cell: func(_ format, c *pb.GetClusterStatusResponse) string { return number(c.GetAppliedIndex()) }},
		{Header: "DIGEST", Cell: func(_ format, c *pb.GetClusterStatusResponse) string { return c.GetDigest() }},
		{Header: "DIVERGED", Cell: func(_ format, c *pb.GetClusterStatusResponse) string { return yesNo(c.GetDiverged()) }},
	},
}

var memberView = view[*pb.Member]{
	columns: []Column[*pb.Member]{
		{Header: "NODE", Cell: func(_ format, m *pb.Member) string { return m.GetNode() }},
		{Header: "ROLE", Cell: func(_ format, m *pb.Member) string { return m.GetRole() }},
		{Header: "STATE", Cell: func(_ format, m *pb.Member) string { return m.GetState() }},
		{Header: "ADDRESS", Cell: func(_ format, m *pb.Member) string { return m.GetAddress() }},
		{Header: "LAST-INDEX", Cell: func(_ format, m *pb.Member) string { return number(m.GetLastIndex()) }},
		{Header: "CLOCK", Cell: func(_ format, m *pb.Member) string { return fmt.Sprintf("%+dms", m.GetClockOffsetMs()) }},
	},
}

func (a *App) cluster() *cobra.Command {
	leader := a.group("leader", "The node that decides", a.leaderTransfer())
	return a.group("cluster", "The cluster as a whole", a.clusterInit(), a.clusterStatus(), leader)
}

func (a *App) clusterStatus() *cobra.Command {
	return a.command(spec{
		use: "status", short: "Show leader, members and the digest of the state", takes: prints,
		long: "Show leader, members and the digest of the state, as one node sees them. It works without a quorum.",
		run: func(ctx context.Context, r *request, _ []string) error {
			answer, err := r.GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
			if err != nil {
				return err
			}
			res := clusterView.detail(answer)
			lines := res.text
			res.text = func(out *bytes.Buffer, p printer) {
				lines(out, p)
				out.WriteByte('\n')
				memberView.table(out, p, answer.GetMembers())
			}
			return r.print(res)
		},
	})
}

func (a *App) leaderTransfer() *cobra.Command {
	return a.command(spec{
		use: "transfer", args: []arg{{"[NODE]", completeNodes}}, short: "Let another voter lead", takes: prints | mutates,
		long: "Let another voter lead: the given one, or any.",
		run: func(ctx context.Context, r *request, args []string) error {
			in := &pb.TransferLeadershipRequest{Mutation: r.mutation()}
			if len(args) > 0 {
				in.Node = bare(cairn.KindNode, args[0])
			}
			answer, err := r.TransferLeadership(ctx, in)
			if err != nil {
				return err
			}
			ref := string(cairn.KindNode) + "/" + answer.GetLeader()
			r.would("let %s lead", ref)
			return r.print(sentence(ref, ref+" "+r.decided("leads"), answer))
		},
	})
}

func (a *App) why() *cobra.Command {
	return a.command(spec{
		use: "why", args: []arg{{"RESOURCE", completeResources}}, short: "Explain the state of a resource",
		long: `Explain the state of a resource: its task, who holds it, what is being waited for, the last error and the next attempt.

RESOURCE is what -o name prints: share/NAME, snapshot/SHARE/NAME, node/NAME, pool/NODE/POOL, or the kind with an ID.`,
		example: "cairn why share/docs",
		takes:   prints | inProject,
		run: func(ctx context.Context, r *request, args []string) error {
			if kind, name, ok := strings.Cut(args[0], "/"); !ok || kind == "" || name == "" {
				return usagef("resource %q: want KIND/NAME, such as share/docs or node/n1", args[0])
			}
			answer, err := r.Why(ctx, &pb.WhyRequest{Resource: args[0]})
			if err != nil {
				return err
			}
			return r.print(explanation(args[0], answer))
		},
	})
}

func explanation(ref string, answer *pb.WhyResponse) result {
	return result{
		refs: []string{ref}, messages: []proto.Message{answer},
		text: func(out *bytes.Buffer, p printer) {
			if p.headers {
				fmt.Fprintln(out, oneLine(answer.GetSummary()))
			}
			var rows [][]string
			for _, line := range answer.GetLines() {
				rows = append(rows, []string{"  " + oneLine(line.GetTopic()), oneLine(line.GetText())})
			}
			align(out, rows, make([]int, 2))
		},
	}
}

var verdictView = view[*pb.PlacementVerdict]{
	ref: func(v *pb.PlacementVerdict) string { return string(cairn.KindPool) + "/" + v.GetPool() },
	columns: []Column[*pb.PlacementVerdict]{
		{Header: "POOL", Cell: func(_ format, v *pb.PlacementVerdict) string { return v.GetPool() }},
		{Header: "FITS", Cell: func(_ format, v *pb.PlacementVerdict) string { return yesNo(v.GetAccepted()) }},
		{Header: "SCORE", Cell: func(_ format, v *pb.PlacementVerdict) string {
			if !v.GetAccepted() {
				return ""
			}
			return fmt.Sprintf("%.3f", v.GetScore())
		}},
		{Header: "FILTER", Cell: func(_ format, v *pb.PlacementVerdict) string { return v.GetFilter() }},
		{Header: "REASON", Cell: func(_ format, v *pb.PlacementVerdict) string { return oneLine(v.GetReason()) }},
		{Header: "TERMS", Wide: true, Cell: func(_ format, v *pb.PlacementVerdict) string {
			return strings.Join(collect(v.GetTerms(), func(t *pb.PlacementTerm) string {
				return fmt.Sprintf("%s=%.3f*%g", t.GetName(), t.GetValue(), t.GetWeight())
			}), "\n")
		}},
	},
}

func (a *App) placement() *cobra.Command {
	in := &pb.ExplainPlacementRequest{}
	var bytes size
	explain := a.command(spec{
		use: "explain", short: "Show where a share would be placed, and why",
		long: `Show what the scheduler thinks of each pool for a share that would be created: which filter refuses it, or its score. The
first pool is the one that would be chosen. -o wide shows how each score came about.`,
		example: "cairn placement explain --size 100GiB --zone b",
		takes:   prints,
		run: func(ctx context.Context, r *request, _ []string) error {
			if in.Size = int64(bytes); in.Size == 0 {
				return usagef("placement: --size is missing; give one, such as --size 10GiB")
			}
			answer, err := r.ExplainPlacement(ctx, in)
			if err != nil {
				return err
			}
			res := verdictView.list(answer.GetVerdicts(), "no pools")
			res.messages, res.many = []proto.Message{answer}, false
			if err := r.print(res); err != nil {
				return err
			}
			if answer.GetChosen() == "" {
				return fmt.Errorf("placement: no pool fits: %w; the reasons are above", cairn.ErrCapacity)
			}
			return nil
		},
	})
	explain.Flags().Var(&bytes, "size", "size, such as 10GiB")
	explain.Flags().StringVar(&in.Type, "type", "", "share type (default: default)")
	explain.Flags().StringVar(&in.Protocol, "proto", "", "how clients reach it: webdav (the default) or nfs")
	explain.Flags().StringVar(&in.Zone, "zone", "", "only pools of nodes in this zone")
	mustComplete(explain, "type", a.completeFlag(completeTypes))
	mustComplete(explain, "zone", a.completeFlag(completeZones))
	return a.group("placement", "Where shares go", explain)
}
