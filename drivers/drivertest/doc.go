// Package drivertest holds every driver to the contract of package drivers: one conformance suite for pools, one crash
// sweep for pools, one conformance suite for exporters.
//
// It knows the contract and no driver: each driver's own tests bring a harness. It is itself tested with a pool that
// makes the mistakes of the trade, one at a time, each of which the suite or the sweep has to find. What a test finds out in a process of
// its own, because it mounts file systems, is shown and counted as if it had run here (Replay).
package drivertest
