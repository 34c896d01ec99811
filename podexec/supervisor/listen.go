package supervisor

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Socket is the abstract unix socket of a worker. It needs no volume, works with
// a read-only root, and is scoped to the pod's network namespace.
const Socket = "@ffpod-worker"

// Listen listens on an abstract unix socket for processes of this user and root.
// An abstract socket has no file mode, so each peer's credentials are checked.
func Listen(name string) (net.Listener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; is another supervisor running in this pod?", name, err)
	}
	return &ownListener{l}, nil
}

type ownListener struct{ *net.UnixListener }

// Accept drops strangers silently: they have no business to know more.
func (l *ownListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if own(conn) {
			return conn, nil
		}
		conn.Close()
	}
}

func own(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || failed != nil {
		return false
	}
	return peer.Uid == 0 || int(peer.Uid) == os.Getuid()
}
