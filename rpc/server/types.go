package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type typeService struct {
	pb.UnimplementedTypeServiceServer
	*Server
}

// specText reads and writes the extra specs that are texts, specFlag those that are booleans.
type (
	specText func(*cairn.ShareType) *string
	specFlag func(*cairn.ShareType) *bool
)

var specTexts = map[string]specText{
	"driver":           func(t *cairn.ShareType) *string { return &t.Driver },
	"replication_type": func(t *cairn.ShareType) *string { return (*string)(&t.Replication) },
	"failover":         func(t *cairn.ShareType) *string { return (*string)(&t.Failover) },
}

// specMaxRPO is how much time of writes an automatic failover may leave behind.
const specMaxRPO = "max_rpo"

var specFlags = map[string]specFlag{
	"snapshot_support":                   func(t *cairn.ShareType) *bool { return &t.Snapshots },
	"create_share_from_snapshot_support": func(t *cairn.ShareType) *bool { return &t.Clone },
	"revert_to_snapshot_support":         func(t *cairn.ShareType) *bool { return &t.Revert },
	"mount_snapshot_support":             func(t *cairn.ShareType) *bool { return &t.MountSnapshots },
}

// parseType reads a share type with its extra specs.
func parseType(t *pb.ShareType) (cairn.ShareType, error) {
	row := cairn.ShareType{Name: t.GetName(), Description: t.GetDescription(), Format: cairn.Format(t.GetFormat())}
	if err := checkName(cairn.KindType, row.Name); err != nil {
		return row, err
	}
	if err := checkDescription(row.Description); err != nil {
		return row, err
	}
	switch row.Format {
	case "":
		row.Format = cairn.FormatFiles
	case cairn.FormatFiles, cairn.FormatBlock:
	default:
		return row, fmt.Errorf("format %s: want files or block: %w", shown(string(row.Format)), cairn.ErrInvalid)
	}
	if err := checkMetadata(t.GetSpecs()); err != nil {
		return row, fmt.Errorf("extra specs: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(t.GetSpecs())) {
		if err := parseSpec(&row, key, t.GetSpecs()[key]); err != nil {
			return row, err
		}
	}
	return row, nil
}

func parseSpec(row *cairn.ShareType, key, value string) error {
	if text, ok := specTexts[key]; ok {
		*text(row) = value
		return checkSpecText(key, value)
	}
	if flag, ok := specFlags[key]; ok {
		// Manila writes "<is> True".
		on, err := strconv.ParseBool(strings.ToLower(strings.TrimPrefix(value, "<is> ")))
		if err != nil {
			return fmt.Errorf("extra spec %s: %s: want true or false: %w", key, shown(value), cairn.ErrInvalid)
		}
		*flag(row) = on
		return nil
	}
	if key == specMaxRPO {
		bound, err := time.ParseDuration(value)
		if err != nil || bound <= 0 {
			return fmt.Errorf("extra spec %s: %s: want a time such as 30s: %w", key, shown(value), cairn.ErrInvalid)
		}
		row.MaxRPO = int64(bound)
		return nil
	}
	if driver, name, qualified := strings.Cut(key, ":"); qualified && driver != "" && name != "" {
		if row.Specs == nil {
			row.Specs = map[string]string{}
		}
		row.Specs[key] = value
		return nil
	}
	known := append(slices.Sorted(maps.Keys(specTexts)), specMaxRPO)
	known = append(known, slices.Sorted(maps.Keys(specFlags))...)
	return fmt.Errorf("extra spec %s: is not known; use one of %s, or a driver-qualified one such as zfs:compression: %w",
		shown(key), strings.Join(known, ", "), cairn.ErrInvalid)
}

// specValues are the legal values of the specs that have only a few.
var specValues = map[string][]string{
	"replication_type": {"", string(cairn.ReplicationReadable), string(cairn.ReplicationDR)},
	"failover":         {"", string(cairn.FailoverManual), string(cairn.FailoverAuto)},
}

func checkSpecText(key, value string) error {
	if legal, few := specValues[key]; few && !slices.Contains(legal, value) {
		return fmt.Errorf("extra spec %s: %s: want %s: %w", key, shown(value), strings.Join(legal[1:], " or "), cairn.ErrInvalid)
	}
	return nil
}

func typePB(t *cairn.ShareType) *pb.ShareType {
	specs := map[string]string{}
	maps.Copy(specs, t.Specs)
	for key, text := range specTexts {
		if value := *text(t); value != "" {
			specs[key] = value
		}
	}
	if t.MaxRPO > 0 {
		specs[specMaxRPO] = time.Duration(t.MaxRPO).String()
	}
	for key, flag := range specFlags {
		specs[key] = strconv.FormatBool(*flag(t))
	}
	return &pb.ShareType{Name: t.Name, Description: t.Description, Format: string(t.Format), Specs: specs, CreatedAt: timestamp(t.CreatedAt)}
}

// CreateType is described in the proto file.
func (s *typeService) CreateType(ctx context.Context, req *pb.CreateTypeRequest) (*pb.CreateTypeResponse, error) {
	row, err := parseType(req.GetType())
	if err != nil {
		return nil, err
	}
	out, err := s.commit(ctx, plainly(req.GetMutation(), &fsm.CreateType{Type: row}))
	if err != nil {
		return nil, err
	}
	made := out.view.Type(out.id)
	switch {
	case made == nil && out.dry:
		row.CreatedAt = s.at()
		made = &row
	case made == nil:
		return nil, gone(cairn.KindType, out.id)
	}
	return &pb.CreateTypeResponse{Type: typePB(made)}, nil
}

// plainly is a change whose command says everything without a look at the state.
func plainly(m *pb.Mutation, cmd fsm.Command) change {
	build := func(*fsm.View) (fsm.Command, error) { return cmd, nil }
	return change{mutation: m, own: build, build: build, again: func(string) fsm.Command { return cmd }}
}

// ListTypes is described in the proto file.
func (s *typeService) ListTypes(ctx context.Context, req *pb.ListTypesRequest) (*pb.ListTypesResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	answer := &pb.ListTypesResponse{}
	for t := range v.Types() {
		answer.Types = append(answer.Types, typePB(t))
	}
	return answer, nil
}

// GetType is described in the proto file.
func (s *typeService) GetType(ctx context.Context, req *pb.GetTypeRequest) (*pb.GetTypeResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	t := v.Type(req.GetName())
	if t == nil {
		return nil, fmt.Errorf("type %s: %w", shown(req.GetName()), cairn.ErrNotFound)
	}
	return &pb.GetTypeResponse{Type: typePB(t)}, nil
}

// DeleteType is described in the proto file.
func (s *typeService) DeleteType(ctx context.Context, req *pb.DeleteTypeRequest) (*pb.DeleteTypeResponse, error) {
	if req.GetName() == "" {
		return nil, fmt.Errorf("type: name is missing: %w", cairn.ErrInvalid)
	}
	_, err := s.commit(ctx, plainly(req.GetMutation(), &fsm.DeleteType{Name: req.GetName()}))
	return &pb.DeleteTypeResponse{}, err
}
