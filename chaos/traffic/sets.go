package traffic

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cairn-storage/cairn/chaos/model"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

// turns repeats what a client does.
func (a *actor) turns(ctx context.Context, turn func(ctx context.Context)) {
	for a.rest(ctx) {
		turn(ctx)
	}
}

// set does one operation on a set.
func (a *actor) set(ctx context.Context, resource string, kind model.Kind, in model.Input, call func(context.Context) (model.Output, error)) model.Operation {
	return a.do(ctx, model.Operation{Client: a.number, Kind: kind, Resource: resource, Input: in}, call)
}

func done(err error) (model.Output, error) { return model.Output{}, err }

// types creates, reads and deletes share types.
func (a *actor) types(prefix string) func(context.Context) {
	service, n := a.api.Types(), 0
	return func(ctx context.Context) {
		in := model.Input{Name: fmt.Sprintf("%s-type-%d", prefix, a.random.IntN(2))}
		resource := "type/" + in.Name
		switch dice := a.random.IntN(10); {
		case dice < 5:
			a.set(ctx, resource, model.Get, in, func(ctx context.Context) (model.Output, error) {
				answer, err := service.GetType(ctx, &cairnv1.GetTypeRequest{Name: in.Name})
				return model.Output{Items: []model.Item{{Name: in.Name, Value: answer.GetType().GetSpecs()["chaos:v"]}}}, err
			})
		case dice < 8:
			n++
			in.Value = fmt.Sprintf("%d-%d", a.number, n)
			a.set(ctx, resource, model.Put, in, func(ctx context.Context) (model.Output, error) {
				_, err := service.CreateType(ctx, &cairnv1.CreateTypeRequest{Type: &cairnv1.ShareType{
					Name: in.Name, Format: "files", Specs: map[string]string{"chaos:v": in.Value},
				}})
				return done(err)
			})
		default:
			a.set(ctx, resource, model.Remove, in, func(ctx context.Context) (model.Output, error) {
				_, err := service.DeleteType(ctx, &cairnv1.DeleteTypeRequest{Name: in.Name})
				return done(err)
			})
		}
	}
}

// quotas changes one limit of a project at a time and reads all.
func (a *actor) quotas(project string) func(context.Context) {
	service, n := a.api.Quotas(), int64(0)
	return func(ctx context.Context) {
		if a.chance(50) {
			a.set(ctx, "quota/"+project, model.List, model.Input{}, func(ctx context.Context) (model.Output, error) {
				answer, err := service.GetQuota(ctx, &cairnv1.GetQuotaRequest{Project: project})
				return model.Output{Items: limits(answer.GetQuota().GetLimits())}, err
			})
			return
		}
		n++
		limit := n*100 + int64(a.number)
		in, request := model.Input{Name: "bytes", Value: strconv.FormatInt(limit, 10)}, &cairnv1.SetQuotaRequest{Project: project, Bytes: &limit}
		if a.chance(50) {
			in.Name, request.Bytes, request.Shares = "shares", nil, &limit
		}
		a.set(ctx, "quota/"+project, model.Set, in, func(ctx context.Context) (model.Output, error) {
			_, err := service.SetQuota(ctx, request)
			return done(err)
		})
	}
}

func limits(amounts *cairnv1.Amounts) []model.Item {
	var items []model.Item
	for _, limit := range []struct {
		name  string
		value int64
	}{{"bytes", amounts.GetBytes()}, {"shares", amounts.GetShares()}} {
		if limit.value >= 0 {
			items = append(items, model.Item{Name: limit.name, Value: strconv.FormatInt(limit.value, 10)})
		}
	}
	return items
}

// tokens makes, lists and takes back join tokens for a machine that never comes.
func (a *actor) tokens(machine string) func(context.Context) {
	service, id := a.api.Nodes(), ""
	return func(ctx context.Context) {
		in := model.Input{Name: machine}
		switch dice := a.random.IntN(10); {
		case dice < 4:
			op := a.set(ctx, "token/"+machine, model.List, model.Input{}, func(ctx context.Context) (model.Output, error) {
				answer, err := service.ListNodeTokens(ctx, &cairnv1.ListNodeTokensRequest{})
				var out model.Output
				for _, token := range answer.GetTokens() {
					if token.GetName() == machine {
						out.Items = append(out.Items, model.Item{Name: machine, Value: token.GetId()})
					}
				}
				return out, err
			})
			if len(op.Output.Items) > 0 {
				id = op.Output.Items[0].Value
			}
		case dice < 7 || id == "":
			a.set(ctx, "token/"+machine, model.Add, in, func(ctx context.Context) (model.Output, error) {
				answer, err := service.CreateNodeToken(ctx, &cairnv1.CreateNodeTokenRequest{Name: machine, TtlSeconds: 24 * 60 * 60})
				return model.Output{ID: answer.GetId()}, err
			})
		default:
			in.ID = id
			a.set(ctx, "token/"+machine, model.Remove, in, func(ctx context.Context) (model.Output, error) {
				_, err := service.DeleteNodeToken(ctx, &cairnv1.DeleteNodeTokenRequest{Id: in.ID})
				return done(err)
			})
		}
	}
}

// rules changes the access rules of a share, for clients at the given addresses. Only one client may change those of a share: it
// names them by address, which is resolved before the command is made.
func (a *actor) rules(share string, sources []string, changes bool) func(context.Context) {
	service, target := a.api.Access(), &cairnv1.AccessTarget{Share: share}
	return func(ctx context.Context) {
		in := model.Input{Name: sources[a.random.IntN(len(sources))], Value: []string{"rw", "ro"}[a.random.IntN(2)]}
		dice := a.random.IntN(10)
		switch {
		case !changes || dice < 4:
			a.set(ctx, "rules/"+share, model.List, model.Input{}, func(ctx context.Context) (model.Output, error) {
				answer, err := service.ListAccess(ctx, &cairnv1.ListAccessRequest{Target: target})
				return model.Output{Items: granted(answer.GetRules())}, err
			})
		case dice < 7:
			a.set(ctx, "rules/"+share, model.Put, in, func(ctx context.Context) (model.Output, error) {
				_, err := service.AllowAccess(ctx, &cairnv1.AllowAccessRequest{Target: target, Kind: "ip", Who: in.Name, Level: in.Value})
				return done(err)
			})
		case dice < 9:
			a.set(ctx, "rules/"+share, model.Remove, model.Input{Name: in.Name}, func(ctx context.Context) (model.Output, error) {
				_, err := service.DenyAccess(ctx, &cairnv1.DenyAccessRequest{Target: target, Kind: "ip", Who: in.Name})
				return done(err)
			})
		default:
			whole := &cairnv1.SetAccessRequest{Target: target, Rules: []*cairnv1.AccessRule{{Kind: "ip", Who: in.Name, Level: in.Value}}}
			a.set(ctx, "rules/"+share, model.Replace, model.Input{Items: []model.Item{{Name: in.Name, Value: in.Value}}}, func(ctx context.Context) (model.Output, error) {
				_, err := service.SetAccess(ctx, whole)
				return done(err)
			})
		}
	}
}

// granted shows rules as entries: those that are on their way out are leaving.
func granted(rules []*cairnv1.AccessRule) []model.Item {
	var items []model.Item
	for _, rule := range rules {
		items = append(items, model.Item{Name: rule.GetWho(), Value: rule.GetLevel(), Leaving: rule.GetState() == "denying" || rule.GetState() == "queued_to_deny"})
	}
	slices.SortFunc(items, func(a, b model.Item) int { return strings.Compare(a.Name, b.Name) })
	return items
}
