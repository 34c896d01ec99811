package supervisor

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// Dial copies in to the supervisor's socket and the socket to out until either
// side ends: it is all that pods/exec ever runs. A supervisor that is about to
// listen is waited for, at most wait.
func Dial(ctx context.Context, name string, wait time.Duration, in io.Reader, out io.Writer) error {
	conn, err := connect(ctx, name, wait)
	if err != nil {
		return err
	}
	defer conn.Close()
	ended := make(chan error, 2)
	go func() { ended <- carry(conn, in) }()
	go func() { ended <- carry(out, conn) }()
	select {
	case err := <-ended: // the other copy ends with the process
		return err
	case <-ctx.Done():
		return nil
	}
}

// carry copies with a large buffer and plain reads and writes: splice(2), which
// io.Copy would choose, passes on the small pieces of a socket one by one, and
// every hop after this one pays for each piece.
func carry(dst io.Writer, src io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 256<<10))
	return err
}

// connect retries: an exec may come before the supervisor listens.
func connect(ctx context.Context, name string, wait time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var dialer net.Dialer
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := dialer.DialContext(ctx, "unix", name)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("dial %s: no supervisor within %s: %w", name, wait, err)
		case <-tick.C:
		}
	}
}
