package replica

import (
	"bytes"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// wantedExport is an export as it should be.
type wantedExport struct {
	spec    drivers.ExportSpec
	located bool // clients have been told where it is
}

type wantedExportList []wantedExport

func (l wantedExportList) find(snapshot cairn.SnapshotID) (drivers.ExportSpec, bool) {
	for _, e := range l {
		if e.spec.ID.Snapshot == snapshot {
			return e.spec, true
		}
	}
	return drivers.ExportSpec{}, false
}

// wantedExports is the replica itself, or what a standby shows of itself, and every mounted snapshot that is there.
func wantedExports(w *Want, h *Have) wantedExportList {
	list := shown(w, h)
	row, object := w.Replica, h.Object
	if w.serves() {
		list = append(list, wantedExport{
			located: w.told(),
			spec: drivers.ExportSpec{
				ID:          drivers.ExportID{Replica: row.ID},
				Share:       w.Share.ID,
				Root:        object.Root,
				Staging:     object.Staging,
				Epoch:       row.Epoch,
				Size:        min(row.Want.Size, object.Size), // the smaller one while it grows or shrinks
				EnforceSize: h.Info.Enforcement == drivers.EnforcedByExporter,
				Rules:       w.Rules,
				Fenced:      w.Fenced,
				Address:     w.Address,
				Squash:      w.Squash,
			},
		})
	}
	for _, s := range w.Snapshots {
		snap := h.snapshot(s.Snapshot)
		if !s.mounted() || snap == nil || !snap.Ready || w.Share.Protocol == "" {
			continue
		}
		list = append(list, wantedExport{
			located: len(s.Locations) > 0,
			spec: drivers.ExportSpec{
				ID:       drivers.ExportID{Replica: row.ID, Snapshot: s.Snapshot},
				Share:    w.Share.ID,
				Root:     snap.Root,
				Epoch:    row.Epoch,
				ReadOnly: true,
				Rules:    s.Rules,
				Squash:   w.Squash,
			},
		})
	}
	return list
}

// sameExport reports whether clients would see no difference.
func sameExport(a, b drivers.ExportSpec) bool {
	return a.ID == b.ID && a.Share == b.Share && a.Root == b.Root && a.Staging == b.Staging && a.Epoch == b.Epoch &&
		a.ReadOnly == b.ReadOnly && a.Standby == b.Standby && a.Size == b.Size && a.EnforceSize == b.EnforceSize && a.Fenced == b.Fenced && a.Address == b.Address && a.Squash == b.Squash &&
		slices.EqualFunc(a.Rules, b.Rules, sameRule)
}

func sameRule(a, b cairn.AccessRule) bool {
	return a.ID == b.ID && a.Kind == b.Kind && a.Who == b.Who && a.Level == b.Level &&
		bytes.Equal(a.Secret.Salt, b.Secret.Salt) && bytes.Equal(a.Secret.Hash, b.Secret.Hash)
}
