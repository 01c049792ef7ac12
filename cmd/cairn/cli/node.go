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

var nodeView = view[*pb.Node]{
	ref: func(n *pb.Node) string { return string(cairn.KindNode) + "/" + n.GetName() },
	columns: []Column[*pb.Node]{
		{Header: "NAME", Cell: func(_ format, n *pb.Node) string { return n.GetName() }},
		{Header: "STATE", Cell: func(_ format, n *pb.Node) string { return nodeState(n) }},
		{Header: "ROLE", Cell: func(_ format, n *pb.Node) string { return n.GetRaftRole() }},
		{Header: "ZONE", Cell: func(_ format, n *pb.Node) string { return n.GetZone() }},
		{Header: "ADDRESS", Cell: func(_ format, n *pb.Node) string { return n.GetAddress() }},
		{Header: "REPLICAS", Cell: func(_ format, n *pb.Node) string { return number(n.GetReplicas()) }},
		{Header: "AGE", Cell: func(f format, n *pb.Node) string { return f.age(n.GetJoinedAt()) }},
		{Header: "HTTP", Wide: true, Cell: func(_ format, n *pb.Node) string { return n.GetHttpAddress() }},
		{Header: "COMMANDS", Wide: true, Cell: func(_ format, n *pb.Node) string { return number(n.GetCommandVersion()) }},
		{Header: "LABELS", Wide: true, Cell: func(_ format, n *pb.Node) string { return pairs(n.GetLabels()) }},
		{Header: "ID", Wide: true, Cell: func(_ format, n *pb.Node) string { return n.GetId() }},
	},
}

func nodeState(n *pb.Node) string {
	if n.GetDraining() {
		return n.GetState() + ", draining"
	}
	return n.GetState()
}

var nodeArg = arg{"NODE", completeNodes}

func (a *App) node() *cobra.Command {
	return a.group("node", "Machines of the cluster",
		a.nodeToken(), a.nodeJoin(), a.nodeList(), a.nodeShow(), a.nodeDrain(), a.nodeLeave(), a.nodeRemove(), a.nodeOkToStop())
}

func (a *App) nodeList() *cobra.Command {
	return a.command(spec{
		use: "list", short: "List the nodes", takes: prints | reads,
		run: func(ctx context.Context, r *request, _ []string) error {
			answer, err := r.ListNodes(ctx, &pb.ListNodesRequest{Read: r.read()})
			if err != nil {
				return err
			}
			return r.print(nodeView.list(answer.GetNodes(), "no nodes"))
		},
	})
}

func (a *App) nodeShow() *cobra.Command {
	return a.command(spec{
		use: "show", args: []arg{nodeArg}, short: "Show a node and its pools", takes: prints | reads,
		run: func(ctx context.Context, r *request, args []string) error {
			answer, err := r.GetNode(ctx, &pb.GetNodeRequest{Node: bare(cairn.KindNode, args[0]), Read: r.read()})
			if err != nil {
				return err
			}
			res := nodeView.detail(answer.GetNode())
			res.messages = []proto.Message{answer}
			lines := res.text
			res.text = func(out *bytes.Buffer, p printer) {
				lines(out, p)
				out.WriteByte('\n')
				poolView.table(out, p, answer.GetPools())
			}
			return r.print(res)
		},
	})
}

func (a *App) nodeDrain() *cobra.Command {
	var undo bool
	cmd := a.command(spec{
		use: "drain", args: []arg{nodeArg}, short: "Place no new replicas on a node",
		long:  "Place no new replicas on a node, and say what it still holds. What is there is served as before.",
		takes: prints | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			answer, err := r.drain(ctx, bare(cairn.KindNode, args[0]), undo)
			if err != nil {
				return err
			}
			if undo {
				r.would("place replicas on node/%s again", answer.GetNode().GetName())
			} else {
				r.would("place no new replicas on node/%s", answer.GetNode().GetName())
				if shares := answer.GetShares(); len(shares) > 0 {
					r.notef("node/%s still holds %s", answer.GetNode().GetName(), countShares(shares))
				}
			}
			return r.print(nodeView.row(answer.GetNode()))
		},
	})
	cmd.Flags().BoolVar(&undo, "undo", false, "place replicas on it again")
	return cmd
}

func (r *request) drain(ctx context.Context, node string, undo bool) (*pb.DrainNodeResponse, error) {
	return r.DrainNode(ctx, &pb.DrainNodeRequest{Mutation: r.mutation(), Node: node, Undo: undo})
}

// countShares is "2 shares: docs, media".
func countShares(names []string) string {
	if len(names) == 1 {
		return "1 share: " + names[0]
	}
	return fmt.Sprintf("%d shares: %s", len(names), strings.Join(names, ", "))
}

func (a *App) nodeLeave() *cobra.Command {
	return a.command(spec{
		use: "leave", args: []arg{nodeArg}, short: "Take a node out of the cluster that holds nothing",
		long:  `Drain a node and take it out of the cluster. Refused while it holds shares; the error names them. Any node may be asked. The server on the machine ends its service by itself; a machine comes back with a new token only.`,
		takes: prints | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			return leave(ctx, r, bare(cairn.KindNode, args[0]))
		},
	})
}

// leave looks first without changing anything. Then it drains, so that nothing can be placed between the last look and the
// removal; what was placed before that takes the drain back.
func leave(ctx context.Context, r *request, name string) error {
	try, err := r.DrainNode(ctx, &pb.DrainNodeRequest{Mutation: &pb.Mutation{DryRun: true}, Node: name})
	if err != nil {
		return err
	}
	if len(try.GetShares()) > 0 {
		return holds(try)
	}
	answer, err := r.drain(ctx, name, false)
	if err != nil {
		return err
	}
	if len(answer.GetShares()) > 0 {
		if _, err := r.drain(ctx, name, true); err != nil {
			return fmt.Errorf("%w; it is still being drained, since taking that back: %w", holds(answer), err)
		}
		return holds(answer)
	}
	return removeNode(ctx, r, answer.GetNode(), false)
}

// holds is why a node cannot leave.
func holds(answer *pb.DrainNodeResponse) error {
	name := answer.GetNode().GetName()
	return fmt.Errorf("node/%s: holds %s: %w; delete or unmanage them first, or give them up with: cairn node remove %s --force",
		name, countShares(answer.GetShares()), cairn.ErrInUse, name)
}

func (a *App) nodeRemove() *cobra.Command {
	var force bool
	cmd := a.command(spec{
		use: "remove", args: []arg{nodeArg}, short: "Take a node out of the cluster, also if it is dead",
		long: `Take a node out of the cluster, also if it does not answer. Refused while it holds the only copy of a share; with --force such
shares are forgotten and named. The data on the node's disks stays as it is. --force asks first; where it cannot ask it needs
--yes.`,
		takes: prints | mutates | destroys,
		run: func(ctx context.Context, r *request, args []string) error {
			name := bare(cairn.KindNode, args[0])
			if force {
				if err := r.confirm(ctx, true, "node/%s will be removed, and shares whose only copy it holds will be forgotten", name); err != nil {
					return err
				}
			}
			answer, err := r.GetNode(ctx, &pb.GetNodeRequest{Node: name})
			if err != nil {
				return err
			}
			return removeNode(ctx, r, answer.GetNode(), force)
		},
	})
	cmd.Flags().BoolVar(&force, "force", false, "also if it holds the only copy of shares, which are lost")
	return cmd
}

func removeNode(ctx context.Context, r *request, node *pb.Node, force bool) error {
	answer, err := r.RemoveNode(ctx, &pb.RemoveNodeRequest{Mutation: r.mutation(), Node: node.GetId(), Force: force})
	if err != nil {
		return err
	}
	ref := nodeView.ref(node)
	lost := ""
	if shares := answer.GetLostShares(); len(shares) > 0 {
		lost = ", with the only copy of " + countShares(shares)
	}
	r.would("remove %s%s", ref, lost)
	if lost != "" && !r.flags.change.dryRun {
		r.notef("%s is removed%s", ref, lost)
	}
	return r.print(sentence(ref, ref+" "+r.decided("removed"), answer))
}

// decided is how a command that is done with its answer reports.
func (r *request) decided(verb string) string {
	if r.flags.change.dryRun {
		return "unchanged (dry run)"
	}
	return verb
}

func (a *App) nodeOkToStop() *cobra.Command {
	return a.command(spec{
		use: "ok-to-stop", args: []arg{nodeArg}, short: "Ask whether stopping a node now would hurt",
		long:  "Ask whether stopping a node now would cost the quorum or interrupt the service of shares. Exit code 0 is ok, 5 is not.",
		takes: prints,
		run: func(ctx context.Context, r *request, args []string) error {
			name := bare(cairn.KindNode, args[0])
			answer, err := r.CheckNodeStop(ctx, &pb.CheckNodeStopRequest{Node: name})
			if err != nil {
				return err
			}
			ref := string(cairn.KindNode) + "/" + name
			line := ref + " can be stopped"
			if !answer.GetOk() {
				line = strings.Join(answer.GetReasons(), "\n")
			}
			if err := r.print(sentence(ref, line, answer)); err != nil {
				return err
			}
			if !answer.GetOk() {
				return refusef("%s: stopping it now would hurt; %s", ref, strings.Join(answer.GetReasons(), "; "))
			}
			return nil
		},
	})
}
