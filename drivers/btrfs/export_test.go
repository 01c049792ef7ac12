package btrfs

import "os"

// LimitOf is the limit of a subvolume, in bytes.
func LimitOf(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	q, err := quotaOf(f)
	if err != nil {
		return 0, err
	}
	s, err := subvolumeAt(path)
	if err != nil {
		return 0, err
	}
	return q.group(s, "max_referenced")
}
