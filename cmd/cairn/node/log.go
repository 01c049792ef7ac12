package node

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/cairn-storage/cairn"
)

func (l LogConfig) level() (slog.Level, error) {
	var level slog.Level
	if l.Level == "" {
		return slog.LevelInfo, nil
	}
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return level, fmt.Errorf("log.level %q: want debug, info, warn or error: %w", l.Level, cairn.ErrInvalid)
	}
	return level, nil
}

// NewLogger makes the logger that the configuration describes.
func (l LogConfig) NewLogger(out io.Writer) *slog.Logger {
	level, _ := l.level() // checked when the configuration was read
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}
