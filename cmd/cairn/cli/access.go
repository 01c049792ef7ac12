package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/cairn-storage/cairn"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

var ruleView = view[*pb.AccessRule]{
	ref: func(r *pb.AccessRule) string { return string(cairn.KindRule) + "/" + r.GetId() },
	columns: []Column[*pb.AccessRule]{
		{Header: "KIND", Cell: func(_ format, r *pb.AccessRule) string { return r.GetKind() }},
		{Header: "WHO", Cell: func(_ format, r *pb.AccessRule) string { return r.GetWho() }},
		{Header: "LEVEL", Cell: func(_ format, r *pb.AccessRule) string { return r.GetLevel() }},
		{Header: "STATE", Cell: func(_ format, r *pb.AccessRule) string { return r.GetState() }},
		{Header: "AGE", Cell: func(f format, r *pb.AccessRule) string { return f.age(r.GetCreatedAt()) }},
		{Header: "ID", Wide: true, Cell: func(_ format, r *pb.AccessRule) string { return r.GetId() }},
	},
}

var (
	kindArg  = arg{"KIND", oneOf("ip", "user", "cert")}
	whoArg   = arg{name: "WHO"}
	levelArg = arg{"LEVEL", oneOf("rw", "ro")}
)

const passwordHelp = `

KIND is ip (WHO is an address or CIDR), user (a name) or cert (the common name of a certificate). For a user Cairn makes a
password, which is shown this once: Cairn keeps only a hash of it.`

func (a *App) access() *cobra.Command {
	return a.group("access", "Who may reach a share", a.accessAllow(), a.accessDeny(), a.accessSet(), a.accessList())
}

// target is what rules open: a share, or one of its snapshots.
func (r *request) target(share, snapshot string) *pb.AccessTarget {
	return &pb.AccessTarget{Share: bare(cairn.KindShare, share), Snapshot: snapshot}
}

func targetRef(t *pb.AccessTarget) string {
	if t.GetSnapshot() != "" {
		return string(cairn.KindSnapshot) + "/" + t.GetShare() + "/" + t.GetSnapshot()
	}
	return string(cairn.KindShare) + "/" + t.GetShare()
}

func (a *App) accessAllow() *cobra.Command {
	return a.command(spec{
		use: "allow", args: []arg{shareArg, kindArg, whoArg, levelArg}, short: "Let a client reach a share",
		long: "Let a client reach a share, to read and write (LEVEL rw) or to read (ro)." + passwordHelp,
		example: `
cairn access allow docs ip 10.0.0.0/8 ro
cairn access allow docs user alice rw`,
		takes: prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			return allowAccess(ctx, r, r.target(args[0], ""), args[1], args[2], args[3])
		},
	})
}

func allowAccess(ctx context.Context, r *request, target *pb.AccessTarget, kind, who, level string) error {
	answer, err := r.AllowAccess(ctx, &pb.AllowAccessRequest{Mutation: r.mutation(), Target: target, Kind: kind, Who: who, Level: level})
	if err != nil {
		return err
	}
	rule := answer.GetRule()
	// The password is printed even if the waiting ends badly: it is in this answer and nowhere else.
	var waiting error
	if !r.would("allow %s %s (%s) to reach %s", kind, rule.GetWho(), level, targetRef(target)) {
		waiting = r.awaitRules(ctx, target, answer.GetEvent(), func(rules []*pb.AccessRule) (bool, error) {
			at := slices.IndexFunc(rules, func(seen *pb.AccessRule) bool { return seen.GetId() == rule.GetId() })
			if at < 0 {
				return false, fmt.Errorf("%s: the rule was taken away again: %w", targetRef(target), cairn.ErrNotFound)
			}
			rule = rules[at]
			return enforced(target, rule)
		})
	}
	answer.Rule = rule
	if r.flags.change.dryRun {
		answer.Password = nil // nobody has it
	}
	var passwords []*pb.NewPassword
	if answer.GetPassword() != nil {
		passwords = append(passwords, answer.GetPassword())
	}
	res := ruleView.row(rule)
	res.messages[0] = answer
	return errors.Join(r.printAccess(res, passwords), waiting)
}

var passwordView = view[*pb.NewPassword]{
	columns: []Column[*pb.NewPassword]{
		{Header: "USER", Cell: func(_ format, p *pb.NewPassword) string { return p.GetWho() }},
		{Header: "PASSWORD", Cell: func(_ format, p *pb.NewPassword) string { return p.GetPassword() }},
	},
}

// printAccess prints rules with the passwords that are shown once. Names alone leave no room for them, so there they go to
// stderr: nobody else has them.
func (r *request) printAccess(res result, passwords []*pb.NewPassword) error {
	if len(passwords) > 0 {
		r.notef("warning: a password is shown this once and cannot be shown again; keep it now")
	}
	if len(passwords) > 0 && r.flags.output.style == "name" {
		for _, password := range passwords {
			r.notef("%s %s", password.GetWho(), password.GetPassword())
		}
	}
	rules := res.text
	res.text = func(out *bytes.Buffer, p printer) {
		rules(out, p)
		if len(passwords) > 0 {
			out.WriteByte('\n')
			passwordView.table(out, p, passwords)
		}
	}
	return r.print(res)
}

func (a *App) accessDeny() *cobra.Command {
	return a.command(spec{
		use: "deny", args: []arg{shareArg, {"KIND|RULE", kindArg.complete}, {name: "[WHO]"}}, short: "Stop a client from reaching a share",
		long: "Stop a client from reaching a share, also if it is connected. The rule is named by kind and client, or by its ID.",
		example: `
cairn access deny docs user alice`,
		takes: prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			return denyAccess(ctx, r, r.target(args[0], ""), args[1:])
		},
	})
}

// denyAccess takes a rule away: rule is KIND and WHO, or an ID.
func denyAccess(ctx context.Context, r *request, target *pb.AccessTarget, rule []string) error {
	in := &pb.DenyAccessRequest{Mutation: r.mutation(), Target: target}
	if len(rule) == 2 {
		in.Kind, in.Who = rule[0], rule[1]
	} else {
		in.Rule = bare(cairn.KindRule, rule[0])
	}
	answer, err := r.DenyAccess(ctx, in)
	if err != nil {
		return err
	}
	ref := string(cairn.KindRule) + "/" + answer.GetId()
	if !r.would("deny %s access to %s", strings.Join(rule, " "), targetRef(target)) {
		err := r.awaitRules(ctx, target, answer.GetEvent(), func(rules []*pb.AccessRule) (bool, error) {
			return !slices.ContainsFunc(rules, func(seen *pb.AccessRule) bool { return seen.GetId() == answer.GetId() }), nil
		})
		if err != nil {
			return err
		}
	}
	return r.print(sentence(ref, ref+" "+r.done("taken away", "is being taken away"), answer))
}

func (a *App) accessSet() *cobra.Command {
	var none bool
	cmd := a.command(spec{
		use: "set", args: []arg{shareArg, {name: "KIND:WHO:LEVEL..."}}, short: "Make the given rules the whole set",
		long:    "Make the given rules the whole set of a share, in one step. Rules that are there already stay, with their passwords." + passwordHelp,
		example: "cairn access set docs ip:10.0.0.0/8:ro ip:fd00::/64:rw user:alice:rw",
		takes:   prints | inProject | mutates | waits,
		run: func(ctx context.Context, r *request, args []string) error {
			if none != (len(args) == 1) {
				return usagef("share %s: give the rules as KIND:WHO:LEVEL, or --none to take all away", args[0])
			}
			var rules []*pb.AccessRule
			for _, text := range args[1:] {
				rule, err := parseRule(text)
				if err != nil {
					return err
				}
				rules = append(rules, rule)
			}
			return setAccess(ctx, r, r.target(args[0], ""), rules)
		},
	})
	cmd.Flags().BoolVar(&none, "none", false, "no rules: nobody reaches the share")
	return cmd
}

// parseRule reads KIND:WHO:LEVEL; WHO may hold colons.
func parseRule(text string) (*pb.AccessRule, error) {
	first, last := strings.Index(text, ":"), strings.LastIndex(text, ":")
	if first < 0 || first == last {
		return nil, usagef("rule %q: want KIND:WHO:LEVEL, such as ip:10.0.0.0/8:rw", text)
	}
	return &pb.AccessRule{Kind: text[:first], Who: text[first+1 : last], Level: text[last+1:]}, nil
}

func setAccess(ctx context.Context, r *request, target *pb.AccessTarget, rules []*pb.AccessRule) error {
	answer, err := r.SetAccess(ctx, &pb.SetAccessRequest{Mutation: r.mutation(), Target: target, Rules: rules})
	if err != nil {
		return err
	}
	now := answer.GetRules()
	var waiting error
	if !r.would("make these %d the rules of %s", len(rules), targetRef(target)) {
		waiting = r.awaitRules(ctx, target, answer.GetEvent(), func(seen []*pb.AccessRule) (bool, error) {
			now = seen
			return enforced(target, seen...)
		})
	}
	if r.flags.change.dryRun {
		answer.Passwords = nil // nobody has them
	}
	res := ruleView.list(now, "no rules: nobody reaches "+targetRef(target))
	if len(answer.GetPasswords()) > 0 {
		answer.Rules = now
		res.messages, res.many = []proto.Message{answer}, false
	}
	return errors.Join(r.printAccess(res, answer.GetPasswords()), waiting)
}

func (a *App) accessList() *cobra.Command {
	return a.command(spec{
		use: "list", args: []arg{shareArg}, short: "List who may reach a share", takes: prints | inProject | reads,
		run: func(ctx context.Context, r *request, args []string) error {
			return listAccess(ctx, r, r.target(args[0], ""))
		},
	})
}

func listAccess(ctx context.Context, r *request, target *pb.AccessTarget) error {
	answer, err := r.ListAccess(ctx, &pb.ListAccessRequest{Target: target, Read: r.read()})
	if err != nil {
		return err
	}
	return r.print(ruleView.list(answer.GetRules(), "no rules: nobody reaches "+targetRef(target)))
}

// awaitRules waits until settled says that the rules of the target are as they should be.
func (r *request) awaitRules(ctx context.Context, target *pb.AccessTarget, after uint64, settled func([]*pb.AccessRule) (bool, error)) error {
	if !r.flags.change.wait {
		return nil
	}
	id, err := r.targetID(ctx, target)
	if err != nil {
		return err
	}
	return r.wait(ctx, targetRef(target), id, after, func(ctx context.Context) (string, bool, error) {
		answer, err := r.ListAccess(ctx, &pb.ListAccessRequest{Target: target})
		if err != nil {
			return "", false, err
		}
		done, err := settled(answer.GetRules())
		return "rules are being applied", done, err
	})
}

// targetID is the resource whose events tell about rules.
func (r *request) targetID(ctx context.Context, target *pb.AccessTarget) (string, error) {
	if target.GetSnapshot() != "" {
		snap, err := r.snapshot(ctx, target.GetShare(), target.GetSnapshot())
		return snap.GetId(), err
	}
	answer, err := r.GetShare(ctx, &pb.GetShareRequest{Share: target.GetShare()})
	return answer.GetShare().GetId(), err
}

// enforced reports whether all rules are active; one that cannot be applied is an error.
func enforced(target *pb.AccessTarget, rules ...*pb.AccessRule) (bool, error) {
	all := true
	for _, rule := range rules {
		if rule.GetState() == string(cairn.RuleError) {
			return false, fmt.Errorf("%s: the rule for %s %s cannot be applied: %w; see: cairn why %s",
				targetRef(target), rule.GetKind(), rule.GetWho(), cairn.ErrPrecondition, targetRef(target))
		}
		all = all && rule.GetState() == string(cairn.RuleActive)
	}
	return all, nil
}
