package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/auth"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/cairn-storage/cairn/rpc/errs"
)

// Options are what a gRPC server needs that this Server is registered with. It is called once. From the outside in: metrics,
// log, errors to status codes, who calls, deadline, forwarding to the leader, recovery from panics. Errors are mapped
// outside of authentication and forwarding, because those refuse requests, too.
func (s *Server) Options(creds credentials.TransportCredentials) []grpc.ServerOption {
	metrics := grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(
		grpcprom.WithHistogramBuckets([]float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30})))
	s.cfg.Registry.MustRegister(metrics)
	log := interceptors.CommonReportableFunc(s.report)
	onPanic := recovery.WithRecoveryHandlerContext(s.recovered)
	return []grpc.ServerOption{
		grpc.Creds(creds),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.ChainUnaryInterceptor(
			metrics.UnaryServerInterceptor(),
			interceptors.UnaryServerInterceptor(log),
			mapUnary,
			auth.UnaryServerInterceptor(s.identify),
			s.deadline,
			s.forward,
			recovery.UnaryServerInterceptor(onPanic),
		),
		grpc.ChainStreamInterceptor(
			metrics.StreamServerInterceptor(),
			interceptors.StreamServerInterceptor(log),
			mapStream,
			auth.StreamServerInterceptor(s.identify),
			recovery.StreamServerInterceptor(onPanic),
		),
	}
}

// streamWorkers is how many calls at once run on goroutines that stay, whose stacks have grown to what a call needs; a new one
// copies its own several times. Calls beyond that get a goroutine each.
const streamWorkers = 128

func mapUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	answer, err := handler(ctx, req)
	return answer, errs.ToStatus(err)
}

func mapStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return errs.ToStatus(handler(srv, stream))
}

// deadline gives one to requests that come without: nothing here waits for ever.
func (s *Server) deadline(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if _, ok := ctx.Deadline(); ok {
		return handler(ctx, req)
	}
	ctx, cancel := context.WithTimeout(ctx, s.limits.request)
	defer cancel()
	return handler(ctx, req)
}

// recovered ends the one request that panicked. What it had committed by then stays.
func (s *Server) recovered(ctx context.Context, p any) error {
	method, _ := grpc.Method(ctx)
	s.cfg.Logger.ErrorContext(ctx, "request panicked: please report this with the stack", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return status.Errorf(codes.Internal, "%s: internal error; the log of node %s has the details", method, s.cfg.Self)
}

// report logs one line for each call that failed or was slow.
func (s *Server) report(ctx context.Context, call interceptors.CallMeta) (interceptors.Reporter, context.Context) {
	return &callLog{server: s, ctx: ctx, call: call}, ctx
}

type callLog struct {
	interceptors.NoopReporter
	server *Server
	ctx    context.Context
	call   interceptors.CallMeta
}

// PostCall is called at the end of the call.
func (l *callLog) PostCall(err error, took time.Duration) {
	slow := l.call.Typ == interceptors.Unary && took >= l.server.limits.slowCall
	if err == nil && !slow {
		return
	}
	who, _ := claimOf(l.ctx)
	attrs := []slog.Attr{slog.String("method", l.call.FullMethod()), slog.String("caller", who.String()), slog.Duration("took", took)}
	level, text := slog.LevelWarn, "call was slow"
	if err != nil {
		st := status.Convert(err)
		level, text = failureLevel(st.Code()), "call failed"
		attrs = append(attrs, slog.String("code", st.Code().String()), slog.String("error", st.Message()))
	}
	l.server.cfg.Logger.LogAttrs(l.ctx, level, text, attrs...)
}

// failureLevel tells apart what the caller did wrong, what the cluster cannot do now, and what must not happen.
func failureLevel(code codes.Code) slog.Level {
	switch code {
	case codes.Canceled:
		return slog.LevelDebug
	case codes.Internal, codes.DataLoss:
		return slog.LevelError
	case codes.Unavailable, codes.DeadlineExceeded, codes.Unknown:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
