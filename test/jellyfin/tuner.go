package jellyfin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// tuner is the part of the server that its own ffmpeg reads: live streams, over
// HTTP at the server's first address that is not loopback.
type tuner struct {
	server  *http.Server
	address string
	serving sync.WaitGroup
}

func newTuner(film string) (*tuner, error) {
	host := "127.0.0.1"
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			host = ip.IP.String()
			break
		}
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	t := &tuner{address: listener.Addr().String()}
	t.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(film)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "video/mp2t")
		_, _ = w.Write(b)
	})}
	t.serving.Go(func() {
		if err := t.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			panic(err) // nothing else ends it
		}
	})
	return t, nil
}

func (t *tuner) close() {
	ctx, cancel := context.WithTimeout(context.Background(), heldBound)
	defer cancel()
	if t.server.Shutdown(ctx) != nil {
		_ = t.server.Close()
	}
	t.serving.Wait()
}
