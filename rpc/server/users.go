package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	pb "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

type userService struct {
	pb.UnimplementedUserServiceServer
	*Server
}

const (
	day            = 24 * time.Hour
	userTTL        = 365 * day
	longestUserTTL = 3650 * day
)

// parseUser reads who the new user is to be.
func parseUser(u *pb.User) (cairn.User, error) {
	user := cairn.User{Name: u.GetName(), Role: cairn.UserRole(u.GetRole()), Project: cairn.ProjectID(u.GetProject())}
	if err := cairn.CheckName("user", user.Name); err != nil {
		return user, err
	}
	if rank[user.Role] == 0 {
		return user, fmt.Errorf("role %s: want admin, operator, member or reader: %w", shown(u.GetRole()), cairn.ErrInvalid)
	}
	switch {
	case user.Project != "":
		if user.Role != cairn.UserMember && user.Role != cairn.UserReader {
			return user, fmt.Errorf("user %s: %s is a role for every project; leave the project away: %w", user.Name, user.Role, cairn.ErrInvalid)
		}
		return user, cairn.CheckName("project", u.GetProject())
	case user.Role == cairn.UserMember:
		return user, fmt.Errorf("user %s: a member needs a project: %w", user.Name, cairn.ErrInvalid)
	}
	return user, nil
}

// CreateUser is described in the proto file.
func (s *userService) CreateUser(ctx context.Context, req *pb.CreateUserRequest) (*pb.CreateUserResponse, error) {
	user, err := parseUser(req.GetUser())
	if err != nil {
		return nil, err
	}
	ttl, err := lifetime("days that the certificate is good for", req.GetTtlDays(), day, userTTL, longestUserTTL)
	if err != nil {
		return nil, err
	}
	if err := checkCSR(req.GetCsr()); err != nil {
		return nil, err
	}
	if req.GetMutation().GetDryRun() {
		user.Serial, user.ExpiresAt = "0", s.cfg.Now().Add(ttl).UnixNano()
		_, err := s.commit(ctx, plainly(req.GetMutation(), &fsm.CreateUser{User: user}))
		return &pb.CreateUserResponse{User: userPB(&user), Ca: string(s.cfg.CA)}, err
	}
	meta, err := s.meta(ctx, req.GetMutation())
	if err != nil {
		return nil, err
	}
	certificate, err := s.cfg.Authority.IssueUser(ctx, meta, user.Name, user.Role, user.Project, req.GetCsr(), ttl)
	if err != nil {
		return nil, undecided(err)
	}
	v, err := s.readBack(ctx, newest)
	if err != nil {
		return nil, err
	}
	row := v.User(user.Name)
	if row == nil {
		return nil, gone(cairn.KindUser, user.Name)
	}
	return &pb.CreateUserResponse{User: userPB(row), Certificate: string(certificate), Ca: string(s.cfg.CA)}, nil
}

// checkCSR refuses requests that no authority could sign. Names in it do not count: the certificate says what the request of
// the API says.
func checkCSR(der []byte) error {
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return fmt.Errorf("certificate signing request: %v: %w", err, cairn.ErrInvalid)
	}
	return nil
}

// ListUsers is described in the proto file.
func (s *userService) ListUsers(ctx context.Context, req *pb.ListUsersRequest) (*pb.ListUsersResponse, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	answer := &pb.ListUsersResponse{}
	for u := range v.Users() {
		answer.Users = append(answer.Users, userPB(u))
	}
	return answer, nil
}

// DeleteUser is described in the proto file.
func (s *userService) DeleteUser(ctx context.Context, req *pb.DeleteUserRequest) (*pb.DeleteUserResponse, error) {
	if req.GetName() == "" {
		return nil, fmt.Errorf("user: name is missing: %w", cairn.ErrInvalid)
	}
	_, err := s.commit(ctx, plainly(req.GetMutation(), &fsm.DeleteUser{Name: req.GetName()}))
	return &pb.DeleteUserResponse{}, err
}
