package sim

// What commands say to what they cannot make sense of.
const (
	createUsage = `usage:
	create [-Pnpuv] [-o property=value] ... <filesystem>
	create [-Pnpsv] [-b blocksize] [-o property=value] ... -V <size> <volume>
` + usageEnd
	snapshotUsage = `usage:
	snapshot [-r] [-o property=value] ... <filesystem|volume>@<snap> ...
` + usageEnd
	bookmarkUsage = `usage:
	bookmark <snapshot|bookmark> <newbookmark>
` + usageEnd
	receiveUsage = `usage:
	receive [-vMnsFhu] [-o <property>=<value>] ... [-x <property>] ...
	    <filesystem|volume|snapshot>
	receive [-vMnsFhu] [-o <property>=<value>] ... [-x <property>] ... ` + `
	    [-d | -e] <filesystem>
	receive -A <filesystem|volume>
` + usageEnd
	usageEnd = `
For the property list, run: zfs set|get

For the delegated permission list, run: zfs allow|unallow`
)
