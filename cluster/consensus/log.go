package consensus

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// Logger renders Raft's log as slog, one level quieter: what Raft calls an error (a peer that does not answer, once per
// attempt) is at most a warning to an operator. What he can act on is logged by this repository's own code.
func Logger(logger *slog.Logger) hclog.Logger {
	intercept := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard})
	intercept.RegisterSink(sink{logger})
	return intercept
}

type sink struct{ logger *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s sink) Accept(_ string, level hclog.Level, message string, args ...any) {
	quieter := slog.LevelDebug
	switch level {
	case hclog.Error:
		quieter = slog.LevelWarn
	case hclog.Warn:
		quieter = slog.LevelInfo
	}
	if s.logger.Enabled(context.Background(), quieter) {
		s.logger.Log(context.Background(), quieter, "raft: "+message, args...)
	}
}
