package tool

// NewExitError is for Runners that are not the machine: the error of a tool that ended with code, as Machine reports it.
func NewExitError(c Cmd, code int, stdout, stderr []byte) *ExitError {
	return &ExitError{Cmd: c.String(), Code: code, Stdout: stdout, Stderr: stderr, shown: c.redact(oneLine(stderr))}
}
