package fsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-storage/cairn"
)

// TestGoldenBytes holds the encoding of every command against the bytes in testdata/encoding.txt. The file is frozen: a line
// that was released never changes, because logs and snapshots of older releases hold such bytes. A new command adds a line.
func TestGoldenBytes(t *testing.T) {
	golden := readGolden(t)
	for op := range Op(255) {
		construct, ok := ops[op]
		if !ok {
			if golden[op] != "" {
				t.Errorf("op %d has golden bytes, but is not in the table: numbers are never given up", op)
			}
			continue
		}
		c := construct()
		if c.op() != op {
			t.Errorf("op %d makes a %T, which says that it is op %d", op, c, c.op())
		}
		meta, n := Meta{}, 0
		fill(reflect.ValueOf(&meta).Elem(), &n)
		fill(reflect.ValueOf(c).Elem(), &n)
		data, err := Encode(meta, c)
		if err != nil {
			t.Errorf("op %d: %v", op, err)
			continue
		}
		line := fmt.Sprintf("%d %s %s", op, reflect.TypeOf(c).Elem().Name(), hex.EncodeToString(data))
		switch golden[op] {
		case line:
		case "":
			t.Errorf("op %d has no golden bytes; add this line to testdata/encoding.txt:\n%s", op, line)
		default:
			t.Errorf("op %d is encoded differently from what older logs hold:\n got %s\nwant %s", op, line, golden[op])
		}
		decodedMeta, decoded, err := Decode(data)
		if err != nil || decodedMeta != meta || !reflect.DeepEqual(decoded, c) {
			t.Errorf("op %d: decoded %+v %+v, %v", op, decodedMeta, decoded, err)
		}
	}
}

func readGolden(t *testing.T) map[Op]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "encoding.txt"))
	if err != nil {
		t.Fatal(err)
	}
	golden := make(map[Op]string)
	for line := range strings.SplitSeq(strings.TrimSpace(string(data)), "\n") {
		var op Op
		if _, err := fmt.Sscanf(line, "%d ", &op); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		golden[op] = line
	}
	return golden
}

// fill gives every field a value of its own, so that two fields that trade places are noticed.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"z": "1", "a": "2", "m": "3"}).Convert(v.Type()))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.String:
		v.SetString(fmt.Sprintf("v%d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Int64:
		v.SetInt(int64(*n) << (*n % 40)) // of all encoded widths
	default:
		panic("a kind of field that fill does not know: " + v.Type().String())
	}
}

// TestMapsAreSorted makes sure that the only maps in commands are of the type whose keys the encoder sorts.
func TestMapsAreSorted(t *testing.T) {
	var visit func(path string, typ reflect.Type)
	visit = func(path string, typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Struct:
			for i := range typ.NumField() {
				field := typ.Field(i)
				if !field.IsExported() {
					t.Errorf("%s.%s is not exported, so it would not be replicated", path, field.Name)
				}
				visit(path+"."+field.Name, field.Type)
			}
		case reflect.Slice, reflect.Pointer:
			visit(path, typ.Elem())
		case reflect.Map:
			if typ != reflect.TypeFor[map[string]string]() {
				t.Errorf("%s is a %s: its keys would be encoded in random order", path, typ)
			}
		case reflect.Float32, reflect.Float64, reflect.Interface, reflect.Int:
			t.Errorf("%s is a %s: not the same on every machine", path, typ)
		}
	}
	for _, construct := range ops {
		typ := reflect.TypeOf(construct()).Elem()
		visit(typ.Name(), typ)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := Encode(Meta{Token: "t"}, &DeleteShare{ID: "s"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"nothing", nil, cairn.ErrCorrupt},
		{"an unknown op", append([]byte{199}, good[1:]...), cairn.ErrUpgrade},
		{"op 0", append([]byte{0}, good[1:]...), cairn.ErrUpgrade},
		{"another command's fields", append([]byte{byte(OpResizeShare)}, good[1:]...), cairn.ErrCorrupt},
		{"a missing byte", good[:len(good)-1], cairn.ErrCorrupt},
		{"only the op", good[:1], cairn.ErrCorrupt},
		{"a byte too many", append(bytes.Clone(good), 0), cairn.ErrCorrupt},
		{"three in the array", []byte{byte(OpDeleteShare), 0x93, 0xc0, 0xc0, 0xc0}, cairn.ErrCorrupt},
		{"a string of 4 GiB", []byte{byte(OpDeleteShare), 0x92, 0xdb, 0xff, 0xff, 0xff, 0xff}, cairn.ErrCorrupt},
		{"an array of 4 G values", []byte{byte(OpDeleteShare), 0xdd, 0xff, 0xff, 0xff, 0xff}, cairn.ErrCorrupt},
		{"a float", []byte{byte(OpDeleteShare), 0x92, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0, 0xc0}, cairn.ErrCorrupt},
		{"deep arrays", append([]byte{byte(OpDeleteShare)}, bytes.Repeat([]byte{0x91}, 1<<20)...), cairn.ErrCorrupt},
	} {
		if _, _, err := Decode(c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// FuzzDecode: whatever the bytes are, Decode neither panics nor takes memory that they do not account for; what it accepts
// survives another round; and no command that can be decoded makes the machine panic or leave rows behind when refused.
func FuzzDecode(f *testing.F) {
	for op := range ops {
		c, n := ops[op](), 0
		fill(reflect.ValueOf(c).Elem(), &n)
		data, err := Encode(Meta{}, c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		meta, c, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Encode(meta, c)
		if err != nil {
			t.Fatal(err)
		}
		meta2, c2, err := Decode(again)
		if err != nil || meta2 != meta || !reflect.DeepEqual(c2, c) {
			t.Fatalf("second round: %+v %+v, %v", meta2, c2, err)
		}
		m := smallMachine(t)
		before := m.View()
		result := m.Apply(before.Index()+1, data)
		if result.Err != nil && m.View().Digest() != before.Digest() {
			t.Fatalf("%v, but the state has changed", result.Err)
		}
		checkState(t, m)
	})
}

// smallMachine has one of everything, under the identifiers that fill gives to the commands of the corpus where it can.
func smallMachine(t rapid.TB) *Machine {
	t.Helper()
	m := New()
	apply(t, m, &InitCluster{Cluster: cairn.Cluster{ID: "c1", Name: "lab"}, Admin: cairn.User{Name: "alice", Role: cairn.UserAdmin}})
	apply(t, m, &RegisterNode{cairn.Node{ID: "n1", Name: "n1", Address: "n1:1", CommandVersion: 1}})
	apply(t, m, &RegisterPools{Node: "n1", Pools: []cairn.Pool{bigPool("n1", "fast")}})
	apply(t, m, createShare("s1", 1<<30))
	apply(t, m, &ReportReplica{Node: "n1", Replica: "r-s1", Generation: 1, Epoch: 1, Have: cairn.ReplicaHave{Presence: cairn.Present, Size: 1 << 30}})
	apply(t, m, &CreateSnapshot{cairn.Snapshot{ID: "p1", Share: "s1", Name: "p1"}})
	apply(t, m, &AllowAccess{cairn.AccessRule{ID: "a1", Share: "s1", Kind: cairn.AccessIP, Who: "10.0.0.1", Level: cairn.AccessRW}})
	return m
}

func bigPool(node cairn.NodeID, name string) cairn.Pool {
	return cairn.Pool{
		ID: cairn.MakePoolID(node, name), Node: node, Name: name, Driver: "dir", Total: 1 << 60, OverSubscriptionPercent: 100,
		Capabilities: []cairn.Capability{cairn.CapAdopt, cairn.CapClone, cairn.CapReplicate, cairn.CapResize, cairn.CapRevert, cairn.CapSnapshot},
		Protocols:    []cairn.Protocol{cairn.ProtocolWebDAV},
	}
}

func createShare(name string, size int64) *CreateShare {
	return &CreateShare{
		Share: cairn.Share{
			ID: cairn.ShareID(name), Project: "web", Name: name, Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV,
			Type: cairn.DefaultType, Size: size,
		},
		Replicas: []Placement{{ID: cairn.ReplicaID("r-" + name), Pool: "n1/fast"}},
	}
}

// apply fails the test if the command is refused.
func apply(t rapid.TB, m *Machine, c Command) Result {
	t.Helper()
	result := try(t, m, Meta{At: 1}, c)
	if result.Err != nil {
		t.Fatalf("%T: %v", c, result.Err)
	}
	return result
}

// try applies the command as the next entry of the log.
func try(t rapid.TB, m *Machine, meta Meta, c Command) Result {
	t.Helper()
	data, err := Encode(meta, c)
	if err != nil {
		t.Fatal(err)
	}
	return m.Apply(m.live.index+1, data)
}
