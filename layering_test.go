package cairn_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/cairn-storage/cairn"

// layers says what the packages below a folder may import of this module, besides packages of the same folder. The longest
// matching folder rules. Test files may import more: they wire things together as cmd does.
var layers = map[string][]string{
	"":                        {},
	"fsm":                     {""},
	"cluster":                 {"", "fsm", "rpc/pb"},
	"cluster/placement":       {"", "fsm"},
	"failover":                {"", "fsm", "actors/replica"},
	"actors":                  {""},
	"actors/replica":          {"", "fsm", "drivers", "actors"},
	"actors/sim":              {"", "actors"},
	"gateway":                 {"", "fsm"},
	"drivers":                 {""},
	"drivers/sim":             {"", "drivers/tool"},
	"drivers/tool":            {""},
	"drivers/tool/transcript": {"", "drivers/tool"},
	"drivers/calls":           {},
	"drivers/zfs":             {"", "drivers", "drivers/calls", "drivers/tool"},
	"drivers/btrfs":           {"", "drivers", "drivers/calls", "drivers/tool"},
	"drivers/dir":             {"", "drivers"},
	"drivers/fence":           {"", "drivers", "drivers/tool"},
	"drivers/webdav":          {"", "drivers"},
	"drivers/drivertest":      {"", "drivers"},
	"drivers/nfs":             {"", "drivers", "drivers/tool"},
	"drivers/nfs/nfstest":     {"", "drivers/tool", "deploy/lab"},
	"drivers/ganesha":         {"", "drivers", "drivers/tool", "drivers/nfs/record", "drivers/nfs/compound"},
	"replication":             {"", "fsm", "actors", "rpc"},
	"rpc/pb":                  {},
	"rpc/errs":                {""},
	"rpc/client":              {"", "rpc"},
	"rpc/server":              {"", "fsm", "cluster/placement", "rpc"},
	"deploy/lab/labdisk":      {},
	"deploy/lab/netlab":       {"", "drivers/tool"},
	"chaos/bugs":              {},
	"chaos/dav":               {},
	"chaos/disk":              {},
	"chaos/failpoint":         {},
	"chaos/local":             {"", "drivers/tool", "rpc"},
	"chaos/fault":             {"", "chaos/disk", "chaos/local", "chaos/model", "chaos/network", "drivers/tool", "rpc"},
	"chaos/model":             {},
	"chaos/network":           {"drivers/tool"},
	"chaos/nfs":               {"drivers/nfs/compound", "drivers/tool"},
	"chaos/report":            {"chaos/model", "chaos/validate"},
	"chaos/scenarios":         {"", "chaos", "drivers/tool", "rpc"},
	"chaos/traffic":           {"", "chaos/dav", "chaos/local", "chaos/model", "chaos/nfs", "drivers/webdav", "rpc"},
	"chaos/validate":          {"chaos/model"},
	"chaos/virtual":           {},
	"cmd":                     {"", "fsm", "cluster", "actors", "drivers", "replication", "failover", "gateway", "rpc", "chaos", "cmd"},
	"bench":                   {"", "fsm", "cluster", "actors", "drivers", "replication", "failover", "rpc", "chaos", "cmd"},
	"systemtest":              {"", "fsm", "cluster", "actors", "drivers", "replication", "failover", "rpc", "chaos", "cmd"},
}

// TestLayering holds the table against the imports. The absences carry the design: drivers does not know fsm, fsm does not
// know drivers, actors knows neither cluster nor rpc.
func TestLayering(t *testing.T) {
	for file, imports := range projectImports(t) {
		from := layerOf(filepath.ToSlash(filepath.Dir(file)))
		for _, path := range imports {
			if path == "os/exec" && from != "drivers/tool" {
				t.Errorf("%s imports os/exec: only drivers/tool runs programs", file)
			}
			inner, ok := insideModule(path)
			if !ok {
				if from == "" && strings.Contains(strings.Split(path, "/")[0], ".") {
					t.Errorf("%s imports %s: the root package has the standard library only", file, path)
				}
				continue
			}
			if to := layerOf(inner); to != from && !allowed(layers[from], inner) {
				t.Errorf("%s imports %q: the layer %q may not know it", file, inner, from)
			}
		}
	}
}

// TestLayersExist fails when a folder of Go code is missing in the table or the table names one that is gone.
func TestLayersExist(t *testing.T) {
	used := map[string]bool{}
	for file := range projectImports(t) {
		dir := filepath.ToSlash(filepath.Dir(file))
		if dir != "." && layerOf(dir) == "" {
			t.Errorf("%s: its folder is in no layer; add it to the table", file)
		}
		used[layerOf(dir)] = true
	}
	for layer := range layers {
		if !used[layer] {
			t.Errorf("layer %q has no Go file", layer)
		}
	}
}

func projectImports(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "tools") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		found[path] = nil
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			found[path] = append(found[path], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// insideModule returns the folder of an import of this module; "" is the root package.
func insideModule(path string) (string, bool) {
	if path == module {
		return "", true
	}
	return strings.CutPrefix(path, module+"/")
}

// layerOf is the longest folder of the table that holds dir.
func layerOf(dir string) string {
	best := ""
	for layer := range layers {
		if (dir == layer || strings.HasPrefix(dir, layer+"/")) && len(layer) > len(best) {
			best = layer
		}
	}
	return best
}

func allowed(layers []string, dir string) bool {
	for _, layer := range layers {
		if dir == layer || layer != "" && strings.HasPrefix(dir, layer+"/") {
			return true
		}
	}
	return false
}
