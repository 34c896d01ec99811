package jellyfin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Web is a server that stays: PID 1 of a pod, with as much of Jellyfin's HTTP as
// its probes and its viewers need.
//
//	GET    /health                        Degraded, then Healthy; 200 both
//	GET    /Videos/{viewer}/hls1/{n}      segment n of the film, transcoded
//	DELETE /Videos/{viewer}               the player stops
//	POST   /orders                        an Order; answers with its Report
//
// It starts as Jellyfin does: the transcode directory is emptied, the web server
// answers, and only then is ffmpeg asked for its features. Without a valid
// ffmpeg it exits. At its end it tells no ffmpeg anything.
type Web struct {
	order   Order
	server  *Server
	healthy atomic.Bool
	ready   chan struct{} // the features are known

	mu      sync.Mutex
	viewers map[string]*HLS
}

// ServeWeb serves until the context ends, or until start-up finds no ffmpeg.
func ServeWeb(ctx context.Context, address string, o Order) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	w := &Web{order: o, ready: make(chan struct{}), viewers: map[string]*HLS{}}
	web := &http.Server{Handler: w.routes(), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 2)
	go func() { ended <- web.Serve(listener) }()
	defer web.Close()
	go func() {
		if err := w.start(ctx); err != nil {
			ended <- fmt.Errorf("error while starting server: %w", err)
		}
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (w *Web) start(ctx context.Context) error {
	server, err := NewServer(w.order)
	if err != nil {
		return err
	}
	if err := wipe(server.path("/cache/transcodes")); err != nil {
		return err
	}
	w.server = server
	w.healthy.Store(true)
	log.Print("web server: healthy")
	if server.Features, err = server.Validate(ctx, os.Getenv("SIMULATOR_VAAPI_DEVICE")); err != nil {
		return err
	}
	log.Printf("ffmpeg %s: %d processes told %d encoders, %d decoders", server.Features.Version, server.Features.Processes,
		len(server.Features.Encoders), len(server.Features.Decoders))
	close(w.ready)
	return nil
}

// wipe deletes every file below a directory, as TranscodeManager does when it is
// made. The directories stay.
func wipe(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Remove(path)
	})
}

func (w *Web) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(out http.ResponseWriter, _ *http.Request) {
		state := "Degraded"
		if w.healthy.Load() {
			state = "Healthy"
		}
		_, _ = out.Write([]byte(state))
	})
	mux.HandleFunc("GET /Videos/{viewer}/hls1/{n}", w.whenReady(w.segment))
	mux.HandleFunc("DELETE /Videos/{viewer}", w.whenReady(w.stop))
	mux.HandleFunc("POST /orders", w.whenReady(w.perform))
	return mux
}

// whenReady answers 503 until start-up is over, and an error with 500.
func (w *Web) whenReady(serve func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(out http.ResponseWriter, in *http.Request) {
		select {
		case <-w.ready:
		default:
			out.Header().Set("Retry-After", "1")
			http.Error(out, "starting", http.StatusServiceUnavailable)
			return
		}
		if err := serve(out, in); err != nil {
			log.Printf("%s %s: %v", in.Method, in.URL.Path, err)
			http.Error(out, err.Error(), http.StatusInternalServerError)
		}
	}
}

// viewer finds or makes one viewer's film. Its files carry the viewer's name, as
// Jellyfin's carry a hash of player and session.
func (w *Web) viewer(name string) (*HLS, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.viewers[name]; h != nil {
		return h, nil
	}
	h, err := w.server.film("hls-ts-x264", feature, "/cache/transcodes/"+name)
	if err == nil {
		w.viewers[name] = h
	}
	return h, err
}

func (w *Web) segment(out http.ResponseWriter, in *http.Request) error {
	n, err := strconv.Atoi(in.PathValue("n"))
	if err != nil {
		return err
	}
	h, err := w.viewer(in.PathValue("viewer"))
	if err != nil {
		return err
	}
	// A viewer that has gone does not end the transcode.
	if err := h.Segment(context.WithoutCancel(in.Context()), n); err != nil {
		return err
	}
	out.Header().Set("Content-Type", "video/mp2t")
	http.ServeFile(out, in, h.file(n))
	return nil
}

func (w *Web) stop(_ http.ResponseWriter, in *http.Request) error {
	w.mu.Lock()
	h := w.viewers[in.PathValue("viewer")]
	delete(w.viewers, in.PathValue("viewer"))
	w.mu.Unlock()
	if h == nil || h.job == nil {
		return nil
	}
	return cmp.Or(h.End(), h.job.DeleteFiles())
}

func (w *Web) perform(out http.ResponseWriter, in *http.Request) error {
	var o Order
	if err := json.NewDecoder(in.Body).Decode(&o); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	if o.Within <= 0 {
		return errors.New("order: it has no bound (Within)")
	}
	o.FFmpeg, o.Bare, o.Config = w.order.FFmpeg, w.order.Bare, w.order.Config
	report, err := Perform(in.Context(), o)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(report)
}
