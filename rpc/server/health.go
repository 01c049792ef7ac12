package server

import (
	"context"
	"fmt"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/cairn-storage/cairn"
)

// healthService is grpc.health.v1: SERVING while the node knows a leader and its state agrees with the others'.
type healthService struct {
	healthpb.UnimplementedHealthServer
	*Server
}

func (s *healthService) status() healthpb.HealthCheckResponse_ServingStatus {
	leader, _ := s.cfg.Leadership.Leader()
	if _, diverged := s.cfg.State.Machine().Divergence(); diverged || leader == "" {
		return healthpb.HealthCheckResponse_NOT_SERVING
	}
	return healthpb.HealthCheckResponse_SERVING
}

// Check answers for the whole node; it has no parts that fail alone.
func (s *healthService) Check(_ context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if req.GetService() != "" {
		return nil, fmt.Errorf("health of %s: ask for the whole node with an empty name: %w", shown(req.GetService()), cairn.ErrNotFound)
	}
	return &healthpb.HealthCheckResponse{Status: s.status()}, nil
}

// List answers as Check.
func (s *healthService) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	return &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{"": {Status: s.status()}}}, nil
}

// Watch sends the state now and whenever it has changed; leadership is looked at once a second.
func (s *healthService) Watch(req *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	if req.GetService() != "" {
		return stream.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVICE_UNKNOWN})
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for last := healthpb.HealthCheckResponse_UNKNOWN; ; {
		if now := s.status(); now != last {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-tick.C:
		}
	}
}
