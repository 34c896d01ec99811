package session

import (
	"errors"
	"io"
	"sync"

	"github.com/ffpod/ffpod/podexec/wire"
)

// ErrSinkGone is returned by Inbound.Copy after Discard.
var ErrSinkGone = errors.New("the writer of the pipe was told to stop")

// ackEvery is how much more was written before it is acknowledged again. Half the
// sender's ring: it always gets room, and a frame travels back for every few that
// came, not for each. So no release may send with a ring smaller than DefaultRing.
const ackEvery = DefaultRing / 2

// Inbound is the receiving end of one pipe. Accept takes bytes off the link and
// never blocks; Copy writes them and acknowledges what was written.
type Inbound struct {
	pipe wire.Pipe

	mu      sync.Mutex
	more    sync.Cond
	queue   [][]byte
	held    int    // bytes in queue
	limit   int    // more than this held is a broken protocol
	next    uint64 // next offset from the link
	written uint64
	acked   uint64 // of written, the last acknowledgement
	eof     bool
	closed  bool // nothing is written any more; bytes are counted and dropped
	broken  bool // a write failed: the far end is told to stop
	link    *Link
}

// NewInbound makes the receiving end of a pipe. limit bounds what it holds: the
// far end's ring may be smaller, never larger; 0 means four times DefaultRing,
// so that a later release may send with a larger one.
func NewInbound(pipe wire.Pipe, limit int) *Inbound {
	if limit == 0 {
		limit = 4 * DefaultRing
	}
	i := &Inbound{pipe: pipe, limit: limit}
	i.more.L = &i.mu
	return i
}

// Attach sends acknowledgements through l from now on, and at once those that an
// earlier link may have lost. It returns the next offset that the far end has to
// send.
func (i *Inbound) Attach(l *Link) uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.link = l
	if i.written > 0 {
		i.acked = i.written
		l.SendAck(i.pipe, i.written)
	}
	if i.broken {
		i.tellBroken()
	}
	return i.next
}

// tellBroken must be called with the lock held.
func (i *Inbound) tellBroken() {
	if i.link != nil {
		i.link.Send(&wire.Frame{Kind: &wire.Frame_Close{Close: &wire.Close{Pipe: i.pipe}}})
	}
}

// Accept takes one Data frame. Bytes that were seen before are dropped by their
// offset; a gap, more than the limit, another pipe's frame, or an end that is not
// the end is a ProtocolError.
func (i *Inbound) Accept(d *wire.Data) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	b, at := d.Bytes, d.Offset
	end := at + uint64(len(b))
	switch {
	case d.Pipe != i.pipe:
		return protocolErrorf("%s: bytes of %s", i.pipe, d.Pipe)
	case at > i.next:
		return protocolErrorf("%s: bytes %d to %d are missing", i.pipe, i.next, at)
	case d.Eof && end < i.next:
		return protocolErrorf("%s: an end at %d after byte %d", i.pipe, end, i.next)
	case i.eof && end > i.next:
		return protocolErrorf("%s: bytes after the end at %d", i.pipe, i.next)
	}
	if seen := i.next - at; seen >= uint64(len(b)) {
		b = nil
	} else {
		b = b[seen:]
	}
	i.next += uint64(len(b))
	if d.Eof {
		i.eof = true
	}
	if !i.closed && len(b) > 0 {
		if i.held += len(b); i.held > i.limit {
			return protocolErrorf("%s: %d unacknowledged bytes, the limit is %d", i.pipe, i.held, i.limit)
		}
		i.queue = append(i.queue, b)
	}
	i.more.Signal()
	return nil
}

// Copy writes to dst until the pipe's EOF (nil), Discard (ErrSinkGone), or an
// error of dst; after an error the far end is told with a Close, on this link and
// on later ones, and what still comes is dropped. One Copy per Inbound.
func (i *Inbound) Copy(dst io.Writer) error {
	for {
		b, err := i.take()
		if b == nil {
			return err
		}
		if _, err := dst.Write(b); err != nil {
			i.reject()
			return err
		}
		i.done(len(b))
		recycle(b)
	}
}

func (i *Inbound) take() ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.queue) == 0 && !i.eof && !i.closed {
		i.more.Wait()
	}
	switch {
	case i.closed:
		return nil, ErrSinkGone
	case len(i.queue) == 0:
		return nil, nil
	}
	b := i.queue[0]
	i.queue[0] = nil
	i.queue = i.queue[1:]
	return b, nil
}

func (i *Inbound) done(n int) {
	i.mu.Lock()
	i.held -= n
	i.written += uint64(n)
	link, written := i.link, i.written
	due := written-i.acked >= ackEvery
	if due {
		i.acked = written
	}
	i.mu.Unlock()
	if due && link != nil {
		link.SendAck(i.pipe, written)
	}
}

// reject is Discard for a sink that failed.
func (i *Inbound) reject() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed, i.queue = true, nil
	if !i.broken {
		i.broken = true
		i.tellBroken()
	}
}

// Discard ends Copy after the write in progress; later bytes are counted and
// dropped.
func (i *Inbound) Discard() {
	i.mu.Lock()
	i.closed = true
	i.queue = nil
	i.more.Signal()
	i.mu.Unlock()
}

// Pending reports whether bytes wait to be written, or one write is in progress.
func (i *Inbound) Pending() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.next > i.written && !i.closed
}

// Received returns how many bytes arrived, written or not.
func (i *Inbound) Received() uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.next
}

// Finish ends the pipe at its present offset, as an EOF frame would.
func (i *Inbound) Finish() {
	i.mu.Lock()
	i.eof = true
	i.more.Signal()
	i.mu.Unlock()
}
