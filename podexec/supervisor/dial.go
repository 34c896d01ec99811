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
	go func() { _, err := io.Copy(conn, in); ended <- err }()
	go func() { _, err := io.Copy(out, conn); ended <- err }()
	select {
	case err := <-ended: // the other copy ends with the process
		return err
	case <-ctx.Done():
		return nil
	}
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
