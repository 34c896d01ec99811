package supervisor

import "bytes"

const tailBytes = 8 << 10

// tail keeps the end of what a program wrote. It is for one goroutine.
type tail struct{ kept []byte }

func (t *tail) add(b []byte) {
	if t == nil {
		return
	}
	if len(b) > tailBytes {
		b = b[len(b)-tailBytes:]
	}
	if over := len(t.kept) + len(b) - 2*tailBytes; over > 0 {
		t.kept = append(t.kept[:0], t.kept[max(0, len(t.kept)-tailBytes):]...)
	}
	t.kept = append(t.kept, b...)
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.add(b)
	return len(b), nil
}

// String is at least the last tailBytes, of which progress is not a line.
func (t *tail) String() string { return string(bytes.ReplaceAll(t.kept, []byte{'\r'}, []byte{'\n'})) }
