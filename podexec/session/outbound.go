package session

import (
	"errors"
	"io"
	"sync"

	"github.com/ffpod/ffpod/podexec/wire"
)

// chunk bounds the bytes of one Data frame, so that a short pipe on the same
// stream waits for at most this much of a long one.
const chunk = 32 << 10

// ErrReaderGone is returned by Outbound.Pump when the far end closed the pipe.
var ErrReaderGone = errors.New("the reader of the pipe is gone")

// Outbound is the sending end of one pipe: a ring of the bytes that the far end
// has not acknowledged. When the ring is full it stops reading its source, which
// is the back-pressure of a local pipe.
type Outbound struct {
	pipe wire.Pipe

	mu      sync.Mutex
	room    sync.Cond
	ring    []byte // allocated at the first byte
	size    int
	head    int    // index in ring of offset acked
	acked   uint64 // ring holds [acked, end)
	end     uint64
	eof     bool // the source ended at `end`
	discard bool // the far reader is gone
	link    *Link
}

// NewOutbound makes the sending end of a pipe; ring 0 means DefaultRing.
func NewOutbound(pipe wire.Pipe, ring int) *Outbound {
	if ring == 0 {
		ring = DefaultRing
	}
	o := &Outbound{pipe: pipe, size: ring}
	o.room.L = &o.mu
	return o
}

// Attach sends, from offset from on, through l what is in the ring now and what
// comes. What lies before is held until it is acknowledged: the far end has
// received it, not written it. The link of an earlier Attach must have Stopped,
// since its frames are parts of the ring.
func (o *Outbound) Attach(l *Link, from uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if from < o.acked || from > o.end {
		return protocolErrorf("%s wanted from %d, have %d to %d", o.pipe, from, o.acked, o.end)
	}
	o.link = l
	for at := from; at < o.end; {
		b := o.view(at)
		o.send(at, b, false)
		at += uint64(len(b))
	}
	if o.eof {
		o.send(o.end, nil, true)
	}
	return nil
}

// Pump reads src until it ends and sends what it read. It returns nil at EOF,
// ErrReaderGone when the far end closed the pipe, else src's error; in each case
// the far end is told that no more comes. One Pump per Outbound.
func (o *Outbound) Pump(src io.Reader) error {
	for {
		span, ok := o.reserve()
		if !ok {
			return ErrReaderGone
		}
		n, err := src.Read(span)
		gone := o.commit(span[:n], err != nil)
		switch {
		case gone:
			return ErrReaderGone
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// reserve waits for room and returns a free part of the ring. Only Pump writes
// there, so the lock need not be held while src is read.
func (o *Outbound) reserve() ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.discard && int(o.end-o.acked) == o.size {
		o.room.Wait()
	}
	if o.discard {
		return nil, false
	}
	if o.ring == nil {
		o.ring = make([]byte, o.size)
	}
	if o.end == o.acked {
		o.head = 0 // a pipe of few bytes touches few pages
	}
	used := int(o.end - o.acked)
	tail := (o.head + used) % o.size
	limit := o.size
	if tail < o.head {
		limit = o.head
	}
	return o.ring[tail:min(limit, tail+chunk)], true
}

// commit sends what reserve's span now holds.
func (o *Outbound) commit(b []byte, eof bool) (gone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.discard {
		return true
	}
	at := o.end
	o.end += uint64(len(b))
	o.eof = eof
	if len(b) > 0 || eof {
		o.send(at, b, eof)
	}
	return false
}

func (o *Outbound) send(at uint64, b []byte, eof bool) {
	if o.link != nil {
		o.link.Send(&wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: o.pipe, Offset: at, Bytes: b, Eof: eof}}})
	}
}

// view returns the bytes at an offset, up to the ring's end or a chunk.
func (o *Outbound) view(at uint64) []byte {
	start := (o.head + int(at-o.acked)) % o.size
	n := min(int(o.end-at), o.size-start, chunk)
	return o.ring[start : start+n]
}

// Ack frees what the far end has written. An acknowledgement of bytes that were
// never sent is a ProtocolError; an old one is nothing.
func (o *Outbound) Ack(offset uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if offset > o.end {
		return protocolErrorf("%s acknowledged up to %d, sent %d", o.pipe, offset, o.end)
	}
	o.release(offset)
	return nil
}

func (o *Outbound) release(offset uint64) {
	if offset <= o.acked {
		return
	}
	o.head = (o.head + int(offset-o.acked)) % o.size
	o.acked = offset
	o.room.Broadcast()
}

// Freed tells whether the bytes from an offset on are not all held any more: the far
// end has acknowledged some.
func (o *Outbound) Freed(from uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return from < o.acked
}

// Discard is for a Close of the far reader: Pump ends with ErrReaderGone.
// Whoever owns the source closes it, so that its writer notices.
func (o *Outbound) Discard() {
	o.mu.Lock()
	o.discard = true
	o.room.Broadcast()
	o.mu.Unlock()
}

// Offset returns how many bytes came from the source.
func (o *Outbound) Offset() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.end
}
