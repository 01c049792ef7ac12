package cli

import (
	"regexp"
	"strings"
	"testing"
)

// TestCompletion asks as a shell does. Names come from the cluster; the last line is cobra's directive.
func TestCompletion(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct{ typed, want string }{
		{"share show |", "docs media"},
		{"share show d|", "docs"},
		{"share show docs |", ""},
		{"share create new --type |", "default"},
		{"share create new --zone |", "a b"},
		{"share create new --from-snapshot d|", "docs/before"},
		{"share list --output |", "table wide json yaml name"},
		{"share list --project |", "team-a"},
		{"snapshot show docs |", "before"},
		{"access allow docs |", "ip user cert"},
		{"access allow docs ip 10.0.0.1 |", "rw ro"},
		{"node drain |", "n1 n2"},
		{"node token delete |", tokenID},
		{"pool freeze n1|", "n1/data"},
		{"share manage x --pool |", "n1/data n2/data"},
		{"type delete |", "default"},
		{"quota show |", "team-a"},
		{"user delete a|", "admin ann"},
		{"user create x --role |", "admin operator member reader"},
		{"why share/|", "share/docs share/media"},
		{"why |", "share/docs share/media snapshot/docs/before node/n1 node/n2 pool/n1/data pool/n2/data"},
		{"completion |", "bash zsh fish"},
		{"share create |", ""},
	} {
		typed := strings.Split(strings.TrimSuffix(c.typed, "|"), " ")
		o := l.cairn(t.Context(), run{args: append([]string{"__complete"}, typed...)})
		var got []string
		for _, line := range strings.Split(o.stdout, "\n") {
			if name, _, _ := strings.Cut(line, "\t"); name != "" && !strings.HasPrefix(name, ":") {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q (%s)", c.typed, strings.Join(got, " "), c.want, o.stderr)
		}
	}
	for _, request := range l.asked() {
		if method, _, _ := strings.Cut(request, " "); !strings.HasPrefix(method, "List") || !strings.Contains(request, `"stale":true`) {
			t.Errorf("completion asked for %s", request)
		}
	}
}

// TestCompletionWithoutCluster: a cluster that does not answer offers nothing, and says nothing.
func TestCompletionWithoutCluster(t *testing.T) {
	o := cairnCommand(t.Context(), run{args: []string{"__complete", "share", "show", ""}})
	if o.code != exitOK || o.stdout != ":4\n" {
		t.Errorf("exit code %d: %q", o.code, o.stdout)
	}
}

func TestCompletionScripts(t *testing.T) {
	for shell, want := range map[string]string{"bash": "__start_cairn", "zsh": "#compdef cairn", "fish": "complete -c cairn"} {
		o := cairnCommand(t.Context(), run{args: []string{"completion", shell}})
		if o.code != exitOK || !strings.Contains(o.stdout, want) || o.stderr != "" {
			t.Errorf("%s: exit code %d: %s", shell, o.code, o.stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	o := cairnCommand(t.Context(), run{args: []string{"version"}})
	if o.code != exitOK || !regexp.MustCompile(`^cairn \S+( \S+)? go1\.\d+\S* linux/\w+\n$`).MatchString(o.stdout) {
		t.Errorf("exit code %d: %q", o.code, o.stdout)
	}
}
