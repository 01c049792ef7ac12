// Command overlay turns the comments `// failpoint: NAME` of this module into calls, in copies that `go build -overlay` compiles
// instead of the sources. It is run at the root of the module:
//
//	go run ./chaos/failpoint/overlay                  lists the points
//	go run ./chaos/failpoint/overlay bin/.failpoints  also writes the copies there (go looks into no directory with such a name), and bin/.failpoints/overlay.json
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	sources, err := find(root)
	if err != nil {
		return err
	}
	points, err := list(sources)
	if err != nil {
		return err
	}
	for _, point := range points {
		fmt.Println(point)
	}
	if len(args) == 0 {
		return nil
	}
	return write(root, args[0], sources)
}

// list sorts the points. One that is named twice could not be told from the other.
func list(sources []source) ([]string, error) {
	var points []string
	for _, s := range sources {
		points = append(points, s.points...)
	}
	slices.Sort(points)
	for i := 1; i < len(points); i++ {
		if points[i] == points[i-1] {
			return nil, fmt.Errorf("failpoint %s: is there twice", points[i])
		}
	}
	return points, nil
}

func write(root, dir string, sources []source) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	replace := map[string]string{}
	for _, s := range sources {
		copied := filepath.Join(dir, filepath.FromSlash(s.path))
		if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(copied, s.text, 0o644); err != nil {
			return err
		}
		replace[filepath.Join(root, filepath.FromSlash(s.path))] = copied
	}
	data, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "overlay.json"), append(data, '\n'), 0o644)
}
