//go:build lab

package systemtest

// withBinary has nothing to do: the lab brings cairn along, in PATH.
func withBinary(run func() int) int { return run() }
