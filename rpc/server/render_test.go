package server

import (
	"slices"
	"testing"

	"github.com/cairn-storage/cairn"
)

// A row keeps what was reported in its earlier role until its node reports anew, and a node that is down does not.
func TestLocationsAreThoseOfTheRole(t *testing.T) {
	shared, read := cairn.ExportLocation{URL: "https://n1/shares/s/", Preferred: true}, cairn.ExportLocation{URL: "https://n1/replicas/r/", ReadOnly: true}
	for _, tc := range []struct {
		name    string
		role    cairn.Role
		have    cairn.ExportLocation
		reads   bool
		reaches bool
	}{
		{"active", cairn.RoleActive, shared, false, true},
		{"active, was a standby", cairn.RoleActive, read, false, false},
		{"standby", cairn.RoleStandby, read, true, false},
		{"standby, was active", cairn.RoleStandby, shared, false, false},
	} {
		row := &cairn.Replica{Role: tc.role, Have: cairn.ReplicaHave{Locations: []cairn.ExportLocation{tc.have}}}
		if got := slices.Contains(readAt(row), tc.have); got != tc.reads {
			t.Errorf("%s: to be read at %v", tc.name, readAt(row))
		}
		if got := tc.role == cairn.RoleActive && slices.Contains(writtenAt(row), tc.have); got != tc.reaches {
			t.Errorf("%s: to be reached at %v", tc.name, writtenAt(row))
		}
		if row.Have.Locations[0] != tc.have {
			t.Errorf("%s: the row was changed", tc.name)
		}
	}
}
