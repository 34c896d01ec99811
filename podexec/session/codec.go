package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ffpod/ffpod/podexec/wire"
)

// codec is protobuf, the same on the wire as gRPC's own, with less work for Data:
// it is decoded by hand with one copy, and a relay passes it on undecoded. gRPC's
// own codec copies twice, and takes buffers that it zeroes first.
type codec struct{}

// Name is gRPC's for protobuf: a peer without this codec understands every byte.
func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	if p, ok := v.(*packet); ok {
		if p.raw != nil {
			return p.raw, nil // gRPC frees it
		}
		v = p.frame
	}
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("marshal %T: not a protobuf message", v)
	}
	size := proto.Size(m)
	b := takeBuffer(size)
	out, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend((*b)[:0], m)
	if err != nil {
		return nil, err
	}
	*b = out
	return mem.BufferSlice{mem.NewBuffer(b, buffers{})}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	d, isData := readData(data)
	switch m := v.(type) {
	case *packet:
		if isData {
			data.Ref()
			m.raw, m.size = data, d.size
			m.frame = &wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: d.pipe, Offset: d.offset, Eof: d.eof}}}
			return nil
		}
		m.frame = &wire.Frame{}
		v = m.frame
	case *wire.Frame:
		if isData {
			b := takeBuffer(d.size)
			copyFrom(data, d.start, (*b)[:d.size])
			m.Kind = &wire.Frame_Data{Data: &wire.Data{Pipe: d.pipe, Offset: d.offset, Bytes: (*b)[:d.size], Eof: d.eof}}
			return nil
		}
	}
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("unmarshal into %T: not a protobuf message", v)
	}
	whole := data.MaterializeToBuffer(buffers{})
	defer whole.Free()
	return proto.Unmarshal(whole.ReadOnlyData(), m)
}

// packet is a frame in a relay: a Data is kept as it came, with only its head
// decoded. Whoever drops it calls free; sending it hands it to gRPC.
type packet struct {
	frame *wire.Frame
	raw   mem.BufferSlice // nil: frame is whole
	size  int             // bytes of data
}

// ProtoReflect lets gRPC's own codec fill a packet as the frame it is.
func (p *packet) ProtoReflect() protoreflect.Message {
	if p.frame == nil {
		p.frame = &wire.Frame{}
	}
	return p.frame.ProtoReflect()
}

// bytes is how many bytes of data the frame has.
func (p *packet) bytes() int { return p.size + len(p.frame.GetData().GetBytes()) }

// copy is the frame's data, the caller's own.
func (p *packet) copy() []byte {
	if p.raw == nil {
		return bytes.Clone(p.frame.GetData().GetBytes())
	}
	d, _ := readData(p.raw) // as it was read when it came
	b := make([]byte, d.size)
	copyFrom(p.raw, d.start, b)
	return b
}

func (p *packet) free() {
	p.raw.Free()
	p.raw = nil
}

// dataHead says where the bytes of an encoded Data frame are.
type dataHead struct {
	pipe        wire.Pipe
	offset      uint64
	start, size int
	eof         bool
}

// Tags of the encoding, field number and wire type.
const (
	tagFrameData  = 7<<3 | 2
	tagDataPipe   = 1 << 3
	tagDataOffset = 2 << 3
	tagDataBytes  = 3<<3 | 2
	tagDataEOF    = 4 << 3
)

// headBound is more than the longest head: tag and length of the Data, pipe,
// offset, tag and length of the bytes.
const headBound = 64

// readData reads a Data frame in the form that protobuf for Go writes: fields in
// order, defaults left out. Any other form, also a later release's with more
// fields, is left to protobuf.
func readData(data mem.BufferSlice) (d dataHead, ok bool) {
	var head [headBound]byte
	total := data.Len()
	b := head[:data.CopyTo(head[:])]
	at, bad := 0, false
	number := func() uint64 {
		v, n := binary.Uvarint(b[at:])
		if n <= 0 {
			bad = true
			return 0
		}
		at += n
		return v
	}
	tag := func(t byte) bool {
		if at < len(b) && b[at] == t {
			at++
			return true
		}
		return false
	}
	if !tag(tagFrameData) {
		return d, false
	}
	if length := number(); bad || length != uint64(total-at) {
		return d, false
	}
	if tag(tagDataPipe) {
		d.pipe = wire.Pipe(number())
	}
	if tag(tagDataOffset) {
		d.offset = number()
	}
	if tag(tagDataBytes) {
		size := number()
		if bad || size > uint64(total-at) {
			return d, false
		}
		d.start, d.size = at, int(size)
	}
	if bad {
		return d, false
	}
	end := max(at, d.start+d.size)
	switch rest := total - end; rest {
	case 0:
		return d, true
	case 2:
		var eof [2]byte
		copyFrom(data, end, eof[:])
		d.eof = true
		return d, eof == [2]byte{tagDataEOF, 1}
	}
	return d, false
}

// copyFrom fills dst with what starts at an offset.
func copyFrom(data mem.BufferSlice, at int, dst []byte) {
	for _, b := range data {
		if n := b.Len(); at >= n {
			at -= n
			continue
		}
		dst = dst[copy(dst, b.ReadOnlyData()[at:]):]
		at = 0
		if len(dst) == 0 {
			return
		}
	}
}

// buffers are of one size, that of a full Data frame, and are not zeroed.
type buffers struct{}

var pool = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

const (
	bufferSize  = chunk + headBound
	pooledAbove = 4 << 10 // a line of stderr is not worth a pooled buffer
)

func takeBuffer(size int) *[]byte {
	if size > pooledAbove && size <= bufferSize {
		b := pool.Get().(*[]byte)
		*b = (*b)[:size]
		return b
	}
	b := make([]byte, size)
	return &b
}

// Get and Put make it a mem.BufferPool.
func (buffers) Get(size int) *[]byte { return takeBuffer(size) }
func (buffers) Put(b *[]byte) {
	if cap(*b) == bufferSize {
		pool.Put(b)
	}
}

// recycle gives back the bytes of a Data that the codec made, once written.
func recycle(b []byte) {
	if cap(b) == bufferSize {
		pool.Put(&b)
	}
}
