package session

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/ffpod/ffpod/podexec/wire"
)

func TestInboundAccept(t *testing.T) {
	tests := map[string]struct {
		frames []*wire.Data
		want   string
		bad    bool
	}{
		"in order":     {frames: []*wire.Data{{Offset: 0, Bytes: []byte("ab")}, {Offset: 2, Bytes: []byte("c"), Eof: true}}, want: "abc"},
		"repeated":     {frames: []*wire.Data{{Offset: 0, Bytes: []byte("abc")}, {Offset: 0, Bytes: []byte("abc")}, {Offset: 3, Eof: true}}, want: "abc"},
		"overlap":      {frames: []*wire.Data{{Offset: 0, Bytes: []byte("abc")}, {Offset: 1, Bytes: []byte("bcde"), Eof: true}}, want: "abcde"},
		"gap":          {frames: []*wire.Data{{Offset: 0, Bytes: []byte("a")}, {Offset: 2, Bytes: []byte("c")}}, bad: true},
		"beyond limit": {frames: []*wire.Data{{Offset: 0, Bytes: make([]byte, 9)}}, bad: true},
		"empty eof":    {frames: []*wire.Data{{Eof: true}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			in := NewInbound(wire.Pipe_STDOUT, 8)
			var bad bool
			for _, f := range tc.frames {
				f.Pipe = wire.Pipe_STDOUT
				if err := in.Accept(f); err != nil {
					bad = true
				}
			}
			if bad != tc.bad {
				t.Fatalf("protocol error: %v, want %v", bad, tc.bad)
			}
			if bad {
				return
			}
			var got bytes.Buffer
			if err := in.Copy(&got); err != nil || got.String() != tc.want {
				t.Errorf("got %q, %v", got.String(), err)
			}
		})
	}
}

// What a new link asks for again is what was not acknowledged, to the byte.
func TestOutboundAttachRepeats(t *testing.T) {
	out := NewOutbound(wire.Pipe_STDOUT, 8)
	a, b := pair(t)
	first := NewLink(a, LinkOptions{})
	if err := out.Attach(first, 0); err != nil {
		t.Fatal(err)
	}
	src, w := io.Pipe()
	pumped := make(chan error, 1)
	go func() { pumped <- out.Pump(src) }()
	_, _ = w.Write([]byte("abcdef"))
	for got := 0; got < 6; {
		got += len(b.next(t).GetData().Bytes)
	}
	if err := out.Ack(4); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("ghij")) // wraps around the ring of 8
	first.Close()

	c, d := pair(t)
	second := NewLink(c, LinkOptions{})
	defer second.Close()
	in := NewInbound(wire.Pipe_STDOUT, 0)
	if err := out.Attach(second, 4); err != nil {
		t.Fatal(err)
	}
	w.Close()
	_ = in.Accept(&wire.Data{Pipe: wire.Pipe_STDOUT, Bytes: []byte("abcd")})
	done := make(chan struct{})
	var got bytes.Buffer
	go func() { defer close(done); _ = in.Copy(&got) }()
	for eof := false; !eof; {
		f := d.next(t).GetData()
		if err := in.Accept(f); err != nil {
			t.Fatal(err)
		}
		eof = f.Eof
		_ = out.Ack(in.Received())
	}
	within(t, "copied", done)
	if got.String() != "abcdefghij" {
		t.Errorf("got %q", got.String())
	}
	if err := <-pumped; err != nil {
		t.Error(err)
	}
	if err := out.Attach(second, 3); err == nil {
		t.Error("bytes that were acknowledged were promised again")
	}
}

func TestAckOfBytesNeverSent(t *testing.T) {
	var broken *ProtocolError
	if err := NewOutbound(wire.Pipe_STDIN, 0).Ack(1); !errors.As(err, &broken) {
		t.Errorf("got %v", err)
	}
}

// Any sequence of frames gives a prefix of the true stream, or a ProtocolError.
func FuzzInbound(f *testing.F) {
	f.Add([]byte{0, 3, 1, 2, 3, 3}, uint16(9))
	f.Add([]byte{0, 200, 100, 50, 255, 1}, uint16(300))
	truth := make([]byte, 1<<10)
	for i := range truth {
		truth[i] = byte(i * 7)
	}
	f.Fuzz(func(t *testing.T, steps []byte, limit uint16) {
		in := NewInbound(wire.Pipe_STDOUT, int(limit)+1)
		for i := 0; i+1 < len(steps); i += 2 {
			at := int(steps[i]) * 3
			b := truth[at:min(len(truth), at+int(steps[i+1]))]
			if in.Accept(&wire.Data{Pipe: wire.Pipe_STDOUT, Offset: uint64(at), Bytes: b}) != nil {
				return
			}
		}
		in.Finish()
		var got bytes.Buffer
		if err := in.Copy(&got); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(truth, got.Bytes()) || uint64(got.Len()) != in.Received() {
			t.Fatalf("%d bytes are not a prefix", got.Len())
		}
	})
}
