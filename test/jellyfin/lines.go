package jellyfin

import (
	"bufio"
	"io"
)

// lines reads as StreamReader.ReadLine does: a line ends at \n, \r or \r\n, and
// after a \r the next byte is waited for, because it may be a \n. The bytes after
// the last line end are a line if there are any.
type lines struct{ r *bufio.Reader }

func newLines(r io.Reader) lines { return lines{bufio.NewReaderSize(r, 4096)} }

// first blocks until there is a byte or the end: StreamReader.EndOfStream.
func (l lines) first() { _, _ = l.r.Peek(1) }

func (l lines) next() (line string, ok bool) {
	var b []byte
	for {
		c, err := l.r.ReadByte()
		switch {
		case err != nil:
			return string(b), len(b) > 0
		case c == '\n':
			return string(b), true
		case c == '\r':
			if next, err := l.r.Peek(1); err == nil && next[0] == '\n' {
				_, _ = l.r.ReadByte()
			}
			return string(b), true
		}
		b = append(b, c)
	}
}
