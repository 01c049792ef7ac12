package transcript_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

func TestShape(t *testing.T) {
	tests := []struct {
		command string
		want    []string
	}{
		{"zfs list -Hp -o name,used -d 1 tank/a", []string{"zfs list -Hp -o name,used -d 1 NAME"}},
		{"zfs list -Hp -o name,used tank", []string{"zfs list -Hp -o name,used tank"}},
		{"zfs create -o refquota=1G -o cairn:id=r1 tank/r1", []string{"zfs create NAME", "zfs create -o refquota=", "zfs create -o cairn:id="}},
		{"zfs set a=1 b=2 tank/r1", []string{"zfs set NAME", "zfs set a=", "zfs set b="}},
		{"zfs snapshot -o x:y=1 tank/a@s tank/b@s", []string{"zfs snapshot NAME", "zfs snapshot -o x:y="}},
		{"zfs send -w -i #s1 tank/a@s2", []string{"zfs send -w -i NAME"}},
		{"zfs send -t 1-abc-d0", []string{"zfs send -t NAME"}},
		{"exportfs -i -o fsid=7,ro,sync 10.0.0.0/8:/srv/a [::]/0:/srv/a", []string{"exportfs -i NAME", "exportfs -i -o fsid=,ro,sync"}},
		{"exportfs -s", []string{"exportfs -s"}},
	}
	for _, tt := range tests {
		if got := transcript.Shape(strings.Fields(tt.command)); !slices.Equal(got, tt.want) {
			t.Errorf("shape of %s: %q; want %q", tt.command, got, tt.want)
		}
	}
}

func TestRecorded(t *testing.T) {
	j := &judge{TB: t}
	known := transcript.Shapes{"true": true, "true -o a=": true, "true NAME": true}
	r := &transcript.Recorded{Tools: tool.NewMachine(), Shapes: known, T: j}
	for _, args := range [][]string{{}, {"-o", "a=1"}, {"/x", "/y"}, {"-o", "b=1"}, {"-o", "b=2"}, {"-f"}} {
		if _, err := r.Run(t.Context(), tool.Cmd{Name: "true", Args: args}); err != nil {
			t.Error(err)
		}
	}
	if len(j.failures) != 2 || !strings.Contains(j.failures[0], `"true -o b="`) || !strings.Contains(j.failures[1], `"true -f"`) {
		t.Errorf("failures: %q; want one for -o b= and one for -f", j.failures)
	}
}
