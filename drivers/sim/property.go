package sim

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// kinds are the kinds of what has a name, as bits.
type kinds int

const (
	filesystem kinds = 1 << iota
	snapshotKind
	bookmarkKind
)

const (
	datasets   = filesystem | snapshotKind
	everything = datasets | bookmarkKind
)

func (k kinds) String() string {
	return map[kinds]string{filesystem: "filesystem", snapshotKind: "snapshot", bookmarkKind: "bookmark"}[k]
}

// counting says what a number stands for.
type counting int

const (
	nothing counting = iota
	size             // a size that somebody sets
	blocks           // a size that the pool has, in whole blocks
	number
)

// native describes a native property.
type native struct {
	on       kinds
	counts   counting
	readonly bool
	once     bool // set by create and never again
	inherit  bool
	value    string   // without setting
	values   []string // that it can be set to; nil for any
}

var (
	onOff        = []string{"on", "off"}
	compressions = append([]string{"on", "off", "lzjb", "gzip", "zle", "lz4", "zstd", "zstd-fast"}, levels("gzip-", 9)...)
)

func levels(prefix string, most int) (all []string) {
	for i := range most {
		all = append(all, prefix+strconv.Itoa(i+1))
	}
	return all
}

// properties are those that are simulated.
var properties = map[string]native{
	"name":      {on: everything, readonly: true},
	"type":      {on: everything, readonly: true},
	"guid":      {on: everything, counts: number, readonly: true},
	"creation":  {on: everything, counts: number, readonly: true},
	"createtxg": {on: everything, counts: number, readonly: true},
	"objsetid":  {on: datasets, counts: number, readonly: true},

	"used":                 {on: datasets, counts: blocks, readonly: true},
	"available":            {on: filesystem, counts: blocks, readonly: true},
	"referenced":           {on: everything, counts: blocks, readonly: true},
	"logicalused":          {on: filesystem, counts: blocks, readonly: true},
	"logicalreferenced":    {on: everything, counts: blocks, readonly: true},
	"usedbysnapshots":      {on: filesystem, counts: blocks, readonly: true},
	"usedbydataset":        {on: filesystem, counts: blocks, readonly: true},
	"usedbychildren":       {on: filesystem, counts: blocks, readonly: true},
	"usedbyrefreservation": {on: filesystem, counts: blocks, readonly: true},
	"written":              {on: datasets, counts: blocks, readonly: true},
	"compressratio":        {on: everything, readonly: true},

	"mounted":              {on: filesystem, readonly: true},
	"origin":               {on: filesystem, readonly: true},
	"clones":               {on: snapshotKind, readonly: true},
	"defer_destroy":        {on: snapshotKind, readonly: true},
	"userrefs":             {on: snapshotKind, counts: number, readonly: true},
	"receive_resume_token": {on: filesystem, readonly: true},
	"encryptionroot":       {on: datasets, readonly: true},
	"keystatus":            {on: datasets, readonly: true},

	"quota":          {on: filesystem, counts: size, value: "0"},
	"refquota":       {on: filesystem, counts: size, value: "0"},
	"reservation":    {on: filesystem, counts: size, value: "0"},
	"refreservation": {on: filesystem, counts: size, value: "0"},
	"recordsize":     {on: filesystem, counts: size, inherit: true, value: "131072"},
	"canmount":       {on: filesystem, value: "on", values: []string{"on", "off", "noauto"}},
	"mountpoint":     {on: filesystem, inherit: true},
	"keylocation":    {on: filesystem, value: "none"},

	"atime":              {on: filesystem, inherit: true, value: "on", values: onOff},
	"relatime":           {on: filesystem, inherit: true, value: "off", values: onOff},
	"readonly":           {on: filesystem, inherit: true, value: "off", values: onOff},
	"overlay":            {on: filesystem, inherit: true, value: "on", values: onOff},
	"exec":               {on: datasets, inherit: true, value: "on", values: onOff},
	"setuid":             {on: datasets, inherit: true, value: "on", values: onOff},
	"devices":            {on: datasets, inherit: true, value: "on", values: onOff},
	"checksum":           {on: filesystem, inherit: true, value: "on", values: []string{"on", "off", "fletcher2", "fletcher4", "sha256", "sha512", "skein", "edonr"}},
	"compression":        {on: filesystem, inherit: true, value: "off", values: compressions},
	"copies":             {on: filesystem, inherit: true, value: "1", values: []string{"1", "2", "3"}},
	"dedup":              {on: filesystem, inherit: true, value: "off", values: []string{"on", "off", "verify", "sha256", "sha256,verify", "sha512", "sha512,verify"}},
	"dnodesize":          {on: filesystem, inherit: true, value: "legacy", values: []string{"legacy", "auto", "1k", "2k", "4k", "8k", "16k"}},
	"logbias":            {on: filesystem, inherit: true, value: "latency", values: []string{"latency", "throughput"}},
	"primarycache":       {on: datasets, inherit: true, value: "all", values: []string{"all", "none", "metadata"}},
	"secondarycache":     {on: datasets, inherit: true, value: "all", values: []string{"all", "none", "metadata"}},
	"redundant_metadata": {on: filesystem, inherit: true, value: "all", values: []string{"all", "most"}},
	"sharenfs":           {on: filesystem, inherit: true, value: "off", values: []string{"off"}},
	"snapdir":            {on: filesystem, inherit: true, value: "hidden", values: []string{"hidden", "visible"}},
	"sync":               {on: filesystem, inherit: true, value: "standard", values: []string{"standard", "always", "disabled"}},
	"xattr":              {on: datasets, inherit: true, value: "on", values: []string{"on", "off", "dir", "sa"}},
	"acltype":            {on: filesystem, inherit: true, value: "off", values: []string{"off", "noacl", "posix", "posixacl"}},

	"filesystem_limit": {on: filesystem, counts: number, value: strconv.FormatUint(math.MaxUint64, 10)},
	"snapshot_limit":   {on: filesystem, counts: number, value: strconv.FormatUint(math.MaxUint64, 10)},

	"encryption":      {on: datasets, once: true, value: "off", values: []string{"on", "off", "aes-128-ccm", "aes-192-ccm", "aes-256-ccm", "aes-128-gcm", "aes-192-gcm", "aes-256-gcm"}},
	"keyformat":       {on: filesystem, once: true, value: "none", values: []string{"none", "raw", "hex", "passphrase"}},
	"casesensitivity": {on: datasets, once: true, value: "sensitive", values: []string{"sensitive", "insensitive", "mixed"}},
	"normalization":   {on: datasets, once: true, value: "none", values: []string{"none", "formC", "formD", "formKC", "formKD"}},
	"utf8only":        {on: datasets, once: true, value: "off", values: onOff},
}

// isUser reports whether a name is that of a user property.
func isUser(name string) bool { return strings.Contains(name, ":") }

// value is what a property is, and where it comes from in the words of "zfs get".
type value struct {
	value, source string
}

// none is a property that an entity has not got.
var none = value{"-", "-"}

// lookup finds the value of a property.
func (z *ZFS) lookup(e entity, name string) value {
	if isUser(name) {
		return z.lookupUser(e, name)
	}
	if since, ok := strings.CutPrefix(name, "written@"); ok {
		return z.writtenSince(e, since)
	}
	def := properties[name]
	switch {
	case e.kind()&def.on == 0:
		return none
	case def.readonly:
		return value{z.report(e, name), "-"}
	case def.once:
		return z.lookupKey(e, name)
	case name == "mountpoint":
		return z.lookupMountpoint(e.set)
	}
	if v, ok := e.own(name); ok {
		return v
	}
	if name == "keylocation" {
		return z.lookupKey(e, name)
	}
	if def.inherit {
		for d := z.above(e); d != nil; d = z.parent(d) {
			if v, ok := (entity{set: d}).own(name); ok {
				return value{v.value, "inherited from " + d.name}
			}
		}
	}
	return value{def.value, "default"}
}

// own is a value that is set on the entity itself, or came with a stream.
func (e entity) own(name string) (value, bool) {
	if v, ok := e.props()[name]; ok {
		return value{v, "local"}, true
	}
	received := map[string]string(nil)
	switch {
	case e.snap != nil:
		received = e.snap.received
	case e.set != nil && !e.set.shadowed[name]:
		received = e.set.received
	}
	v, ok := received[name]
	return value{v, "received"}, ok
}

// above is where an entity inherits from.
func (z *ZFS) above(e entity) *dataset {
	switch e.kind() {
	case snapshotKind:
		return e.snap.of
	case bookmarkKind:
		return nil
	}
	return z.parent(e.set)
}

// writtenSince is how much has been written since a snapshot.
func (z *ZFS) writtenSince(e entity, since string) value {
	s := e.home().snapshot(since)
	switch {
	case s == nil || e.snap != nil && e.snap.createtxg <= s.createtxg:
		return none
	case e.set != nil:
		return value{strconv.FormatInt(z.now(e.set).sizeWithout(s.state), 10), "local"}
	}
	return value{strconv.FormatInt(e.snap.state.sizeWithout(s.state), 10), "local"}
}

func (z *ZFS) lookupUser(e entity, name string) value {
	if v, ok := e.own(name); ok {
		return v
	}
	for d := z.above(e); d != nil; d = z.parent(d) {
		if v, ok := (entity{set: d}).own(name); ok {
			return value{v.value, "inherited from " + d.name}
		}
	}
	return none
}

// lookupMountpoint: what is inherited goes on with the rest of the name.
func (z *ZFS) lookupMountpoint(d *dataset) value {
	if v, ok := (entity{set: d}).own("mountpoint"); ok {
		return v
	}
	for up := z.parent(d); up != nil; up = z.parent(up) {
		if v, ok := (entity{set: up}).own("mountpoint"); ok {
			at := v.value
			if strings.HasPrefix(at, "/") {
				at = strings.TrimSuffix(at, "/") + d.name[len(up.name):]
			}
			return value{at, "inherited from " + up.name}
		}
	}
	return value{"/" + d.name, "default"}
}

// report is the value of a property that nobody can set.
func (z *ZFS) report(e entity, name string) string {
	id := e.identity()
	switch name {
	case "name":
		return e.name()
	case "type":
		return e.kind().String()
	case "guid":
		return strconv.FormatUint(id.guid, 10)
	case "createtxg":
		return strconv.FormatUint(id.createtxg, 10)
	case "creation":
		return strconv.FormatInt(id.creation, 10)
	case "objsetid":
		return strconv.FormatUint(e.objset(), 10)
	case "compressratio":
		return "1.00"
	case "mounted":
		return yesNo(e.set.mountedAt != "")
	case "origin":
		if e.set.origin == nil {
			return "-"
		}
		return e.set.origin.full()
	case "clones":
		var names []string
		for _, d := range z.clones(e.snap) {
			names = append(names, d.name)
		}
		if len(names) == 0 {
			return "-"
		}
		return strings.Join(names, ",")
	case "defer_destroy":
		return onWhen(e.snap.deferred)
	case "userrefs":
		return strconv.Itoa(len(e.snap.holds))
	case "receive_resume_token":
		return e.set.resumeToken()
	case "encryptionroot", "keystatus":
		return e.home().lock.report(name)
	}
	return strconv.FormatInt(z.space(e, name), 10)
}

func (e entity) objset() uint64 {
	if e.snap != nil {
		return e.snap.guid
	}
	return e.set.object
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func onWhen(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// setting is one property=value of a command.
type setting struct{ name, value string }

// settings reads property=value words, checks them for things of a kind, and gives sizes in bytes. what is what the command
// says it cannot do. creating allows what is set once.
func settings(words []string, kind kinds, creating bool, what string) ([]setting, error) {
	var all []setting
	for _, word := range words {
		name, v, ok := strings.Cut(word, "=")
		if !ok {
			return nil, fail("missing '=' for property=value argument")
		}
		if slices.ContainsFunc(all, func(s setting) bool { return s.name == name }) {
			return nil, fail("property '%s' specified multiple times", name)
		}
		checked, err := check(name, v, kind, creating)
		if err != nil {
			return nil, refuse(what, err)
		}
		all = append(all, setting{name, checked})
	}
	return all, nil
}

func check(name, v string, kind kinds, creating bool) (string, error) {
	def, ok := properties[name]
	switch {
	case isUser(name) && len(v) < 8192:
		return v, nil
	case kind == snapshotKind && ok:
		return "", fail("this property can not be modified for snapshots")
	case !ok && creating && name == "volsize":
		return "", unknown("volumes")
	case !ok:
		return "", fail("invalid property '%s'", name)
	case def.readonly || def.once && !creating:
		return "", fail("'%s' is readonly", name)
	case def.counts == size || def.counts == number:
		return checkNumber(name, v)
	case name == "mountpoint" && !strings.HasPrefix(v, "/") && v != "none" && v != "legacy":
		return "", fail("'mountpoint' must be an absolute path, 'none', or 'legacy'")
	case name == "sharenfs" && v != "off":
		return "", unknown("sharing by zfs itself")
	case def.values != nil && !slices.Contains(def.values, v):
		return "", fail("'%s' must be one of '%s'", name, oneOf(name, def))
	}
	return v, nil
}

func checkNumber(name, v string) (string, error) {
	n, err := parseSize(v)
	if err != nil {
		return "", err
	}
	if v == "0" && (name == "quota" || name == "refquota") {
		return "", fail("use 'none' to disable quota/refquota")
	}
	if name == "recordsize" && (n < 512 || n > 1<<20 || n&(n-1) != 0) {
		return "", fail("'recordsize' must be power of 2 from 512B to 1M")
	}
	return strconv.FormatUint(n, 10), nil
}

// oneOf is how zfs writes down what a property can be.
func oneOf(name string, def native) string {
	if name == "compression" {
		return "on | off | lzjb | gzip | gzip-[1-9] | zle | lz4 | zstd | zstd-[1-19] | zstd-fast | zstd-fast-[1-10,20,30,40,50,60,70,80,90,100,500,1000]"
	}
	return strings.Join(def.values, " | ")
}
