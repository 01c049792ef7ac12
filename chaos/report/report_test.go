package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/model"
	"github.com/cairn-storage/cairn/chaos/validate"
)

// TestReport: the page and the text say what is wrong, what happened, and how long nobody could write; the page needs nothing from
// outside.
func TestReport(t *testing.T) {
	run := Run{
		Title: "cairn chaos run --seed 7", Plan: []string{"kill of n1"}, Cannot: []string{"hang: needs root"},
		History: model.History{
			Operations: []model.Operation{{Kind: model.GetShare, Resource: "x-slot-0", Return: 9 * time.Second, Outcome: model.Unknown}},
			Acks: []model.Ack{
				{Share: "docs", Protocol: "webdav", Epoch: 1, Record: 1, Node: "r1", Return: time.Second},
				{Share: "docs", Protocol: "webdav", Epoch: 2, Record: 2, Node: "r2", Return: 3 * time.Second},
				{Share: "home", Protocol: model.NFS, Record: 1, Return: time.Second}, {Share: "home", Protocol: model.NFS, Record: 2, Return: 6 * time.Second},
				{Share: "home", Protocol: model.NFS, Record: 3, Return: 7 * time.Second},
			},
			Takeovers: []model.Takeover{
				{Share: "docs", From: 1, LeftBehind: 70 * time.Millisecond, At: 2 * time.Second}, {Share: "home", LeftBehind: time.Second, At: 3 * time.Second},
			},
			Faults: []model.Fault{{Kind: "kill", Target: "n1", From: time.Second, To: 2 * time.Second}},
		},
		Verdicts: []validate.Verdict{
			{Check: "one writer", Looked: 2},
			{Check: "linearizable", Looked: 1, Violations: []validate.Violation{{Subject: "slot", Message: "is <wrong>", Picture: []byte(`<html>"picture"</html>`)}}},
			{Check: "tokens once"},
		},
	}
	var html, text bytes.Buffer
	if err := HTML(&html, run); err != nil {
		t.Fatal(err)
	}
	if err := Text(&text, run); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cairn chaos run --seed 7", "1 violations", "is &lt;wrong&gt;", "kill of n1", "hang: needs root", "fault: n1", "&lt;html&gt;&#34;picture&#34;", ">2s<", ">5s<", "over nfs: 3. over webdav: 2."} {
		if !strings.Contains(html.String(), want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	for _, outside := range []string{"http://", "https://", "src=\"", "@import"} {
		if strings.Contains(html.String(), outside) {
			t.Errorf("the page refers to something outside: %q", outside)
		}
	}
	for _, want := range []string{"docs: after epoch 1 (failover, up to 70ms left behind): no acknowledged write for 2s", "home: after 3s (failover, up to 1s left behind): no acknowledged write for 5s", "records: over nfs: 3, over webdav: 2", "1 VIOLATIONS", "slot: is <wrong>", "nothing to look at"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text does not have %q:\n%s", want, &text)
		}
	}
}
