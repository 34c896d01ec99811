package session

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

func TestSilentPeerIsDead(t *testing.T) {
	a, _ := pair(t)
	cancelled := make(chan struct{})
	l := NewLink(a, LinkOptions{Heartbeat: time.Hour, Silence: 20 * time.Millisecond, Cancel: func() { close(cancelled); a.cut(io.EOF) }})
	defer l.Close()
	within(t, "the link dies", l.Dead())
	within(t, "the stream is cancelled", cancelled)
	if _, err := l.Recv(); !errors.Is(err, ErrSilent) {
		t.Errorf("got %v", err)
	}
}

func TestHeartbeatsKeepAQuietLinkAlive(t *testing.T) {
	a, b := pair(t)
	o := LinkOptions{Heartbeat: 5 * time.Millisecond, Silence: 2 * time.Second}
	la, lb := NewLink(a, o), NewLink(b, o)
	defer la.Close()
	defer lb.Close()
	got := make(chan *wire.Frame)
	go func() { f, _ := lb.Recv(); got <- f }()
	go func() { _, _ = la.Recv() }()
	select {
	case <-la.Dead():
		t.Errorf("died: %v", la.Err())
	case <-time.After(100 * time.Millisecond): // 20 heartbeats
	}
	la.Send(startedFrame())
	if f := <-got; f.GetStarted() == nil {
		t.Errorf("Recv returned %v", f)
	}
}

func TestControlOvertakesDataButExitDoesNot(t *testing.T) {
	a, b := pair(t)
	a.out.hold = true
	l := NewLink(a, LinkOptions{})
	defer l.Close()
	l.Send(data(wire.Pipe_STDOUT, 0, "x", false)) // may be in the sender's hand already
	l.Send(data(wire.Pipe_STDOUT, 1, "y", false))
	l.Send(exitFrame(0, 2, 0))
	l.SendAck(wire.Pipe_STDIN, 5)
	l.SendAck(wire.Pipe_STDIN, 9)
	l.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: 15}}})
	a.out.mu.Lock()
	a.out.hold = false
	a.out.more.Broadcast()
	a.out.mu.Unlock()
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	var order string
	for range 5 {
		switch k := b.next(t).Kind.(type) {
		case *wire.Frame_Data:
			order += string(k.Data.Bytes)
		case *wire.Frame_Exit:
			order += "E"
		case *wire.Frame_Signal:
			order += "S"
		case *wire.Frame_Ack:
			if k.Ack.Offset != 9 {
				t.Errorf("acknowledged %d", k.Ack.Offset)
			}
			order += "A"
		}
	}
	if order != "xSAyE" && order != "SAxyE" {
		t.Errorf("order %s", order)
	}
}

func TestQueueIsBounded(t *testing.T) {
	a, _ := pair(t)
	a.out.hold = true
	l := NewLink(a, LinkOptions{Max: 10})
	defer a.cut(io.EOF)
	for range 3 {
		l.Send(data(wire.Pipe_STDOUT, 0, "12345", false))
	}
	l.Send(data(wire.Pipe_STDOUT, 0, "12345", false))
	within(t, "the link dies", l.Dead())
	var broken *ProtocolError
	if !errors.As(l.Err(), &broken) {
		t.Errorf("got %v", l.Err())
	}
}
