package ganesha

import (
	"bytes"
	"regexp"
	"strconv"
)

// line is one line of Ganesha's log.
type line struct {
	function, component, level, text string
}

var logLine = regexp.MustCompile(`\[[^\]]*\] (\S+) :([^:]+) :(\S+) ?:(.*)$`)

func parseLine(text string) (line, bool) {
	m := logLine.FindStringSubmatch(text)
	if m == nil {
		return line{}, false
	}
	return line{m[1], m[2], m[3], m[4]}, true
}

var (
	listed = regexp.MustCompile(`^Export +(\d+) pseudo \(`)
	freed  = regexp.MustCompile(`^Free resources for export \S+ id (\d+) path`)
)

// number is the export that the line is about.
func number(pattern *regexp.Regexp, text string) (uint16, bool) {
	m := pattern.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(m[1], 10, 16)
	return uint16(n), err == nil
}

// severe reports whether the operator should read the line. Ganesha complains about D-Bus, Kerberos and rpcbind at every
// start, which it does not need.
func (l line) severe() bool {
	switch l.component {
	case "DBUS", "NFS CB", "DISP":
		return l.level == "FATAL"
	}
	return l.level == "FATAL" || l.level == "CRIT" || l.level == "MAJ"
}

// lines is an io.Writer that hands on whole lines.
type lines struct {
	each func(string)
	rest []byte
}

const maxLine = 64 << 10

// Write implements io.Writer.
func (l *lines) Write(data []byte) (int, error) {
	l.rest = append(l.rest, data...)
	for {
		end := bytes.IndexByte(l.rest, '\n')
		if end < 0 {
			break
		}
		l.each(string(l.rest[:end]))
		l.rest = l.rest[end+1:]
	}
	if len(l.rest) > maxLine { // no line of ours is as long
		l.rest = nil
	}
	return len(data), nil
}
