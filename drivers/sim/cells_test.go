package sim_test

import (
	"strings"
	"testing"

	"github.com/cairn-storage/cairn/drivers/sim"
)

func TestCells(t *testing.T) {
	tests := []struct {
		name, argv, output, want string
	}{
		{"list", "zfs list -Hp -o name,guid,used,refquota tank/a", "tank/a\t81\t8413184\t1073741824\n", "tank/a\tGUID\t8388608\t1073741824\n"},
		{"list of what is not", "zfs list -Hp -o name,guid,used tank/a", "tank/a\t-\t-\n", "tank/a\t-\t-\n"},
		{"get", "zfs get -Hp guid,used,refquota tank/a", "tank/a\tguid\t81\t-\ntank/a\tused\t24576\t-\ntank/a\trefquota\t0\tdefault\n", "tank/a\tguid\tGUID\t-\ntank/a\tused\t0\t-\ntank/a\trefquota\t0\tdefault\n"},
		{"get of one value", "zfs get -Hp -o value guid tank/a", "81\n", "GUID\n"},
		{"get of values", "zfs get -Hp -o property,value guid,creation tank/a", "guid\t81\ncreation\t12\n", "guid\tGUID\ncreation\t1700000000\n"},
		{"written since", "zfs list -Hp -o written@s1 tank/a", "4194816\n", "4194304\n"},
		{"holds", "zfs holds -H tank/a@s", "tank/a@s\ttag\tSat Nov 21 11:22 2026\n", "tank/a@s\ttag\t1700000000\n"},
		{"send", "zfs send -nP tank/a@s", "full\ttank/a@s\t4201112\nsize\t4201112\n", "full\ttank/a@s\t4194304\nsize\t4194304\n"},
		{"send from", "zfs send -nP -i @r tank/a@s", "incremental\tr\ttank/a@s\t624\nsize\t624\n", "incremental\tr\ttank/a@s\t0\nsize\t0\n"},
		{"another tool", "ls tank", "81\n", "81\n"},
		{"a failure", "zfs list -Hp -o guid,used tank/a", "cannot open 'tank/a': dataset does not exist\n", "cannot open 'tank/a': dataset does not exist\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, at := "", 0
			for _, cell := range sim.Cells(strings.Fields(tt.argv), tt.output) {
				form := cell.Form
				if strings.Contains(form, "%d") {
					form = "GUID"
				}
				got += tt.output[at:cell.Start] + form
				at = cell.End
			}
			if got += tt.output[at:]; got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}
