package session

import (
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Stream is either end of Runner.Run.
type Stream interface {
	Send(*wire.Frame) error
	Recv() (*wire.Frame, error)
}

// LinkOptions are a Link's bounds. The zero value means the defaults.
type LinkOptions struct {
	// Heartbeat is how long the link may send nothing before it sends a
	// Heartbeat. Defaults to 3 s.
	Heartbeat time.Duration
	// Silence is how long the peer may send nothing before it counts as dead.
	// Defaults to 20 s, for a client's end to 9 s: whoever can dial again does so
	// before the other side gives the session up.
	Silence time.Duration
	// Max bounds what is queued towards the peer, in bytes and what a frame costs
	// besides them; more means that somebody ignores the credit of the pipes.
	// Defaults to 8 rings plus one Start: two rings in frames of 3 bytes or more.
	// Who sends a ring in frames of one byte to a peer that stands still loses the
	// stream, and resumes.
	Max int
	// Undecoded lets a Relay pass Data on as it came, to a link that is Undecoded
	// too. Both streams must have been made with this package's options.
	Undecoded bool
	// Cancel, if set, is called once when the link dies, so that a blocked
	// Recv or Send of the stream returns.
	Cancel func()
}

// ForClient gives o the defaults of a client's end.
func (o LinkOptions) ForClient() LinkOptions {
	if o.Silence == 0 {
		o.Silence = 9 * time.Second
	}
	return o
}

// Link is one hop of one session. It owns one goroutine, the only one that
// calls Stream.Send; Close ends it. Send never blocks. Recv is for one
// goroutine at a time.
type Link struct {
	stream Stream
	opts   LinkOptions

	mu       sync.Mutex
	changed  sync.Cond
	urgent   []entry        // control frames: they overtake data
	bulk     []entry        // data, and what must follow it
	acks     [4]*wire.Frame // by pipe: only the newest matters
	queued   int            // weight of urgent and bulk
	sending  bool
	finished bool // the server ended the stream: Recv will tell why
	lastSent time.Time
	err      error // first cause of death; nil while alive

	lastSeen  time.Time
	due       time.Time // of silence
	heartbeat *time.Timer
	silence   *time.Timer
	dead      chan struct{}
	stopped   chan struct{}
}

type entry struct {
	packet
	weight int
}

// NewLink starts the sender of a link. The stream stays the caller's.
func NewLink(s Stream, o LinkOptions) *Link {
	if o.Heartbeat == 0 {
		o.Heartbeat = 3 * time.Second
	}
	if o.Silence == 0 {
		o.Silence = 20 * time.Second
	}
	if o.Max == 0 {
		o.Max = 8*DefaultRing + maxMessage
	}
	now := time.Now()
	l := &Link{stream: s, opts: o, dead: make(chan struct{}), stopped: make(chan struct{}), lastSent: now, lastSeen: now}
	l.changed.L = &l.mu
	l.mu.Lock()
	l.heartbeat = time.AfterFunc(o.Heartbeat, l.beat)
	l.due = now.Add(o.Silence)
	l.silence = time.AfterFunc(o.Silence, l.watch)
	l.mu.Unlock()
	go l.run()
	return l
}

// Send queues a frame. After the link died it is dropped: Err tells why.
func (l *Link) Send(f *wire.Frame) { l.pass(packet{frame: f}) }

// pass queues a packet, which is the link's from then on.
func (l *Link) pass(p packet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || l.finished {
		p.free()
		return
	}
	f := p.frame
	if pipe := f.GetAck().GetPipe(); pipe > 0 && int(pipe) < len(l.acks) {
		l.acks[pipe] = f
		l.changed.Broadcast()
		return
	}
	weight, bulk := weigh(f)
	weight += p.size
	if l.queued += weight; l.queued > l.opts.Max {
		p.free()
		l.fail(protocolErrorf("%d bytes queued, more than every ring together", l.queued))
		return
	}
	if bulk {
		l.bulk = append(l.bulk, entry{p, weight})
	} else {
		l.urgent = append(l.urgent, entry{p, weight})
	}
	l.changed.Broadcast()
}

// What a frame costs in memory besides its bytes, roughly. That of data is low
// enough for a program that writes single bytes to a consumer that is slow.
const (
	dataWeight  = 16
	otherWeight = 256
)

// weigh tells how much a frame adds to the queue and whether it must keep its
// place behind the data before it.
func weigh(f *wire.Frame) (weight int, bulk bool) {
	switch k := f.Kind.(type) {
	case *wire.Frame_Data:
		return dataWeight + len(k.Data.Bytes), true
	case *wire.Frame_Signal, *wire.Frame_Close, *wire.Frame_Heartbeat, *wire.Frame_Ack, *wire.Frame_Progress:
		return otherWeight + proto.Size(f), false
	default: // Exit follows the last byte; what is unknown keeps its order too
		return otherWeight + proto.Size(f), true
	}
}

// SendAck queues an acknowledgement. An older one of the pipe that is still
// queued is replaced.
func (l *Link) SendAck(pipe wire.Pipe, offset uint64) {
	l.Send(&wire.Frame{Kind: &wire.Frame_Ack{Ack: &wire.Ack{Pipe: pipe, Offset: offset}}})
}

// Recv returns the next frame that is not a heartbeat. Its error is the
// stream's, or the cause for which the link died.
func (l *Link) Recv() (*wire.Frame, error) {
	p, err := l.recv(func() (packet, error) {
		f, err := l.stream.Recv()
		return packet{frame: f}, err
	})
	return p.frame, err
}

// messages is a Stream of gRPC's, which can take and give packets.
type messages interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// recvPacket is Recv for a Relay.
func (l *Link) recvPacket() (packet, error) {
	stream, ok := l.stream.(messages)
	if !ok || !l.opts.Undecoded {
		f, err := l.Recv()
		return packet{frame: f, size: 0}, err
	}
	return l.recv(func() (p packet, err error) { err = stream.RecvMsg(&p); return p, err })
}

func (l *Link) transmit(p packet) error {
	if p.raw == nil {
		return l.stream.Send(p.frame)
	}
	return l.stream.(messages).SendMsg(&p)
}

func (l *Link) recv(next func() (packet, error)) (packet, error) {
	for {
		p, err := next()
		if err != nil {
			if cause := l.Err(); cause != nil {
				return packet{}, cause
			}
			return packet{}, err
		}
		l.mu.Lock()
		l.lastSeen = time.Now()
		l.mu.Unlock()
		if p.frame.GetHeartbeat() == nil {
			return p, nil
		}
	}
}

// drain receives until the stream ends: whatever follows an exit says nothing
// but that the peer lives.
func (l *Link) drain() {
	for {
		if _, err := l.Recv(); err != nil {
			return
		}
	}
}

// Flush waits until every queued frame was handed to the stream, or the link
// died: then it returns the cause, or io.EOF when the server had ended the stream.
func (l *Link) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && (l.sending || l.pending()) {
		l.changed.Wait()
	}
	if l.err == nil && l.finished {
		return io.EOF
	}
	return l.err
}

// Dead is closed when the link died: the peer is silent or broke the protocol,
// a Send failed, or Close was called. A stream that its server ended is not dead
// yet: Recv still has what the server said last.
func (l *Link) Dead() <-chan struct{} { return l.dead }

// Stopped is closed when the sender has ended: no frame that was queued is read
// any more. It follows Close as soon as a Send in progress has returned, which
// the end of the stream brings about.
func (l *Link) Stopped() <-chan struct{} { return l.stopped }

// Err returns why the link died, nil while it lives.
func (l *Link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Close drops what is queued and ends the sender. A Send of the stream in
// progress ends when the stream does.
func (l *Link) Close() {
	l.mu.Lock()
	l.fail(ErrClosed)
	sending := l.sending
	l.mu.Unlock()
	if !sending {
		<-l.stopped
	}
}

// fail must be called with the lock held. The first cause stays.
func (l *Link) fail(cause error) {
	if l.err != nil {
		return
	}
	l.err = cause
	l.heartbeat.Stop()
	l.silence.Stop()
	l.drop()
	close(l.dead)
	l.changed.Broadcast()
	if l.opts.Cancel != nil && cause != ErrClosed {
		go l.opts.Cancel() // may take locks of its own; it only cancels a context
	}
}

func (l *Link) pending() bool {
	return len(l.urgent) > 0 || len(l.bulk) > 0 || l.acks != [4]*wire.Frame{}
}

func (l *Link) drop() {
	for _, e := range l.bulk {
		e.free()
	}
	l.urgent, l.bulk, l.acks = nil, nil, [4]*wire.Frame{}
}

func (l *Link) run() {
	defer close(l.stopped)
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		f := l.next()
		for f.frame == nil && l.err == nil {
			l.changed.Wait()
			f = l.next()
		}
		if l.err != nil {
			return
		}
		l.sending = true
		l.mu.Unlock()
		err := l.transmit(f)
		l.mu.Lock()
		l.sending = false
		l.lastSent = time.Now()
		switch {
		case errors.Is(err, io.EOF): // of a client's stream; the status is Recv's
			l.finished = true
			l.drop()
		case err != nil:
			l.fail(err)
		}
		if !l.pending() {
			l.changed.Broadcast() // Flush
		}
	}
}

// next takes the frame to send: control first, then acknowledgements, then data.
func (l *Link) next() packet {
	if len(l.urgent) > 0 {
		return l.shift(&l.urgent)
	}
	for pipe, f := range l.acks {
		if f != nil {
			l.acks[pipe] = nil
			return packet{frame: f}
		}
	}
	if len(l.bulk) > 0 {
		return l.shift(&l.bulk)
	}
	return packet{}
}

func (l *Link) shift(queue *[]entry) packet {
	first := (*queue)[0]
	(*queue)[0] = entry{}
	*queue = (*queue)[1:]
	l.queued -= first.weight
	return first.packet
}

// beat keeps a quiet hop alive.
func (l *Link) beat() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	if quiet := time.Since(l.lastSent); quiet < l.opts.Heartbeat {
		l.heartbeat.Reset(l.opts.Heartbeat - quiet)
		return
	}
	if !l.sending && !l.finished && !l.pending() {
		l.urgent = append(l.urgent, entry{packet: packet{frame: &wire.Frame{Kind: &wire.Frame_Heartbeat{Heartbeat: &wire.Heartbeat{}}}}})
		l.changed.Broadcast()
	}
	l.heartbeat.Reset(l.opts.Heartbeat)
}

// watch declares a silent peer dead. When this process itself was held up (stopped,
// or starved) the peer's signs of life may wait to be read: then it gets some more
// time.
func (l *Link) watch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	late := time.Since(l.due)
	quiet := time.Since(l.lastSeen)
	switch {
	case quiet < l.opts.Silence:
		l.expect(l.opts.Silence - quiet)
	case late > l.opts.Heartbeat/2:
		l.expect(2 * l.opts.Heartbeat)
	default:
		l.fail(ErrSilent)
	}
}

// expect must be called with the lock held.
func (l *Link) expect(within time.Duration) {
	l.due = time.Now().Add(within)
	l.silence.Reset(within)
}
