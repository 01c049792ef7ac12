package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/rpc/client"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

var userView = view[*pb.User]{
	ref: userRef,
	columns: []Column[*pb.User]{
		{Header: "NAME", Cell: func(_ format, u *pb.User) string { return u.GetName() }},
		{Header: "ROLE", Cell: func(_ format, u *pb.User) string { return u.GetRole() }},
		{Header: "PROJECT", Cell: func(_ format, u *pb.User) string { return u.GetProject() }},
		{Header: "EXPIRES", Cell: func(f format, u *pb.User) string { return f.age(u.GetExpiresAt()) }},
	},
}

func userRef(u *pb.User) string { return string(cairn.KindUser) + "/" + u.GetName() }

func (a *App) user() *cobra.Command {
	return a.group("user", "Who may talk to the cluster", a.userCreate(), a.userList(), a.userDelete())
}

// newUser is what user create is asked for.
type newUser struct {
	name, role, project string
	days                int64
	out                 string
	force               bool
}

func (a *App) userCreate() *cobra.Command {
	in := newUser{}
	cmd := a.command(spec{
		use: "create", args: []arg{{name: "NAME"}}, short: "Create a user, or renew a user's certificate",
		long: `Create a user and write a client configuration for it, readable by its owner only. The private key is made here and never
leaves this machine. For a user that exists it is a new certificate, and the old one ends.

admin     everything, nodes and users included
operator  everything with shares of every project; drain and freeze
member    the shares of one project (--project)
reader    reads only; of one project with --project`,
		example: "cairn user create ann --role member --project team-a --out ann.toml",
		takes:   prints | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			in.name = args[0]
			return createUser(ctx, r, in)
		},
	})
	cmd.Flags().StringVar(&in.role, "role", "", "admin, operator, member or reader")
	cmd.Flags().StringVar(&in.project, "project", "", "the user's project, of a member or reader")
	cmd.Flags().StringVar(&in.out, "out", "", "`FILE` for the user's client configuration")
	cmd.Flags().Int64Var(&in.days, "days", 365, "how long the certificate is good for, at most 3650")
	cmd.Flags().BoolVar(&in.force, "force", false, "replace the file if it is there")
	mustComplete(cmd, "role", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp))
	mustComplete(cmd, "project", a.completeFlag(completeProjects))
	return cmd
}

var roles = []string{string(cairn.UserAdmin), string(cairn.UserOperator), string(cairn.UserMember), string(cairn.UserReader)}

func (u newUser) check() error {
	if err := cairn.CheckName("user", u.name); err != nil {
		return err
	}
	switch {
	case u.role == "":
		return usagef("user %s: --role is missing; give admin, operator, member or reader", u.name)
	case u.out == "":
		return usagef("user %s: --out is missing; give the file for the client configuration", u.name)
	case u.days < 1 || u.days > 3650:
		return usagef("user %s: --days %d: must be 1 to 3650", u.name, u.days)
	}
	return nil
}

func createUser(ctx context.Context, r *request, u newUser) (err error) {
	if err := u.check(); err != nil {
		return err
	}
	file, err := openSecret(u.out, u.force)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.close()) }()
	key, csr, err := client.NewKeyAndCSR(u.name)
	if err != nil {
		return err
	}
	answer, err := r.CreateUser(ctx, &pb.CreateUserRequest{
		Mutation: r.mutation(), User: &pb.User{Name: u.name, Role: u.role, Project: u.project}, Csr: csr, TtlDays: u.days,
	})
	if err != nil {
		return err
	}
	if !r.would("create %s with role %s and write %s", userRef(answer.GetUser()), u.role, u.out) {
		cfg := client.Config{
			Addresses: r.config.Addresses, Project: u.project,
			CA: []byte(answer.GetCa()), Certificate: []byte(answer.GetCertificate()), Key: key,
		}
		if err := file.commit(cfg.TOML()); err != nil {
			return err
		}
		r.notef("%s is for %s alone: with it, or CAIRN_CONFIG set to it, cairn is that user", u.out, u.name)
	}
	return r.print(userView.row(answer.GetUser()))
}

func (a *App) userList() *cobra.Command {
	return a.command(spec{
		use: "list", short: "List the users", takes: prints | reads,
		run: func(ctx context.Context, r *request, _ []string) error {
			answer, err := r.ListUsers(ctx, &pb.ListUsersRequest{Read: r.read()})
			if err != nil {
				return err
			}
			return r.print(userView.list(answer.GetUsers(), "no users"))
		},
	})
}

func (a *App) userDelete() *cobra.Command {
	return a.command(spec{
		use: "delete", args: []arg{{"USER", completeUsers}}, short: "Delete a user, whose certificate ends at once", takes: prints | mutates,
		run: func(ctx context.Context, r *request, args []string) error {
			name := bare(cairn.KindUser, args[0])
			answer, err := r.DeleteUser(ctx, &pb.DeleteUserRequest{Mutation: r.mutation(), Name: name})
			if err != nil {
				return err
			}
			ref := string(cairn.KindUser) + "/" + name
			r.would("delete %s", ref)
			return r.print(sentence(ref, ref+" "+r.decided("deleted"), answer))
		},
	})
}
