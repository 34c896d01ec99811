package scheduler

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A worker hands back a record that some release wrote, or somebody else.
func FuzzRecord(f *testing.F) {
	b, err := json.Marshal(Record{V: 1, Caller: testCaller, Kind: "playback", Outputs: [][]byte{[]byte("/cache/x"), {0xff}}, Asked: time.Unix(5, 0).UTC()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{"v":1,"outputs":[null,""],"asked":"0000-01-01T00:00:00Z","new":[]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := readRecord(b)
		if err != nil {
			return
		}
		if got := rec.keys(); len(got) != len(rec.Outputs) {
			t.Fatalf("%d keys of %d outputs", len(got), len(rec.Outputs))
		}
		text, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		again, err := readRecord(text)
		if err != nil || !cmp.Equal(rec.keys(), again.keys()) || rec.Caller != again.Caller || !rec.Asked.Equal(again.Asked) {
			t.Errorf("%+v came back as %+v, %v", rec, again, err)
		}
	})
}
