package server

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// allProjects is what a list takes for "of every project".
const allProjects = "*"

// bound is the project that the caller is confined to, "" if none.
func (c *caller) bound() cairn.ProjectID { return c.user.Project }

// sees reports whether the caller may know about things of the project; those of the cluster have none.
func (c *caller) sees(project cairn.ProjectID) bool { return c.bound() == "" || c.bound() == project }

// project is where the names of a request belong.
func (c *caller) project(asked string) (cairn.ProjectID, error) {
	switch {
	case asked == "" && c.bound() != "":
		return c.bound(), nil
	case asked == "":
		return cairn.DefaultProject, nil
	case !c.sees(cairn.ProjectID(asked)):
		return "", fmt.Errorf("project %s: user %s is bound to project %s: %w", shown(asked), c.user.Name, c.bound(), cairn.ErrDenied)
	}
	return cairn.ProjectID(asked), cairn.CheckName("project", asked)
}

// projects is what a list is about: one project, or all ("").
func (c *caller) projects(asked string) (cairn.ProjectID, error) {
	if asked != allProjects {
		return c.project(asked)
	}
	if c.bound() != "" {
		return "", fmt.Errorf("project *: user %s is bound to project %s: %w", c.user.Name, c.bound(), cairn.ErrDenied)
	}
	return "", nil
}

// share finds a share by ID, or by name in the project. What the caller may not see is not found.
func (c *caller) share(v *fsm.View, text, project string) (*cairn.Share, error) {
	if text == "" {
		return nil, fmt.Errorf("share: name or ID is missing: %w", cairn.ErrInvalid)
	}
	if isID(text) {
		if s := v.Share(cairn.ShareID(strings.ToLower(text))); s != nil && c.sees(s.Project) {
			return s, nil
		}
		return nil, fmt.Errorf("share %s: %w", text, cairn.ErrNotFound)
	}
	in, err := c.project(project)
	if err != nil {
		return nil, err
	}
	files, block := v.ShareByName(in, cairn.FormatFiles, text), v.ShareByName(in, cairn.FormatBlock, text)
	switch {
	case files != nil && block != nil:
		return nil, fmt.Errorf("share %s: project %s has a file share and a volume of that name; use the ID: %w", text, in, cairn.ErrInvalid)
	case files != nil:
		return files, nil
	case block != nil:
		return block, nil
	}
	return nil, fmt.Errorf("share %s: project %s has none of that name: %w", shown(text), in, cairn.ErrNotFound)
}

// snapshot finds a snapshot by ID, or by name together with its share.
func (c *caller) snapshot(v *fsm.View, text, share, project string) (*cairn.Snapshot, error) {
	if text == "" {
		return nil, fmt.Errorf("snapshot: name or ID is missing: %w", cairn.ErrInvalid)
	}
	var of *cairn.Share
	if share != "" {
		var err error
		if of, err = c.share(v, share, project); err != nil {
			return nil, err
		}
	}
	if isID(text) {
		snap := v.Snapshot(cairn.SnapshotID(strings.ToLower(text)))
		if snap == nil || !c.sees(snap.Project) || of != nil && of.ID != snap.Share {
			return nil, fmt.Errorf("snapshot %s: %w", text, cairn.ErrNotFound)
		}
		return snap, nil
	}
	if of == nil {
		return nil, fmt.Errorf("snapshot %s: name its share, too, or use the snapshot's ID: %w", shown(text), cairn.ErrInvalid)
	}
	if snap := v.SnapshotByName(of.ID, text); snap != nil {
		return snap, nil
	}
	return nil, fmt.Errorf("snapshot %s: share %s has none of that name: %w", shown(text), of.Name, cairn.ErrNotFound)
}

// findNode finds a node by name or ID.
func findNode(v *fsm.View, text string) (*cairn.Node, error) {
	if text == "" {
		return nil, fmt.Errorf("node: name or ID is missing: %w", cairn.ErrInvalid)
	}
	if n := v.NodeByName(text); n != nil {
		return n, nil
	}
	if n := v.Node(cairn.NodeID(strings.ToLower(text))); n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("node %s: %w", shown(text), cairn.ErrNotFound)
}

// findPool finds a pool by "node/pool", where the node is a name or an ID.
func findPool(v *fsm.View, text string) (*cairn.Pool, error) {
	nodeText, name, ok := strings.Cut(text, "/")
	if !ok || nodeText == "" || name == "" {
		return nil, fmt.Errorf("pool %s: want node/pool, such as n1/data: %w", shown(text), cairn.ErrInvalid)
	}
	n, err := findNode(v, nodeText)
	if err != nil {
		return nil, err
	}
	if p := v.Pool(cairn.MakePoolID(n.ID, name)); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("pool %s: node %s has none of that name: %w", shown(text), n.Name, cairn.ErrNotFound)
}

// shown quotes text of a request for an error message, cut to a length that fits there.
func shown(text string) string {
	if len(text) > 60 {
		text = text[:60] + "…"
	}
	return strconv.Quote(text)
}
