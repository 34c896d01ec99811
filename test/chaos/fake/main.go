// Command fake stands for ffmpeg in the workers of test/chaos and does what an
// act.Act says: known bytes at a known rate, so that every byte at the other end
// can be judged.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ffpod/ffpod/test/chaos/act"
)

const (
	piece   = 16 << 10
	beat    = 20 * time.Millisecond // of a paced stream, and of looking for a cue
	failure = 97                    // exit code when the fake itself could not go on
)

func main() {
	a, ok := act.Parse(os.Args[1:])
	if !ok {
		fmt.Println("ffmpeg version chaos") // a worker asks its ffmpeg
		return
	}
	code, err := perform(a)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake:", err)
		code = failure
	}
	os.Exit(code)
}

// player is one act in progress.
type player struct {
	act.Act
	quit  atomic.Bool
	wrote int64 // to stdout
}

func perform(a act.Act) (int, error) {
	if a.Deaf {
		signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	}
	p := &player{Act: a}
	out, err := p.open()
	if err != nil {
		return 0, err
	}
	fmt.Fprint(os.Stderr, "ready\n")
	if a.Quit {
		go p.listen()
	}
	if a.Hog > 0 {
		hog(a.Hog)
	}
	var streams sync.WaitGroup
	errs := make([]error, 3)
	streams.Go(func() { p.wrote, errs[0] = p.send(os.Stdout, a.Stdout) })
	streams.Go(func() { _, errs[1] = p.send(os.Stderr, a.Stderr) })
	if out != nil {
		streams.Go(func() { _, errs[2] = p.send(out, a.Output) })
	}
	streams.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	if a.Quit {
		fmt.Fprintf(os.Stderr, "wrote %d\n", p.wrote)
	}
	if a.Echo {
		if _, err := io.Copy(struct{ io.Writer }{os.Stdout}, struct{ io.Reader }{os.Stdin}); err != nil {
			return 0, fmt.Errorf("echo: %w", err)
		}
	}
	time.Sleep(a.Quiet) // a quiet session is what is played
	if out != nil {
		return a.Code, out.Close()
	}
	return a.Code, nil
}

// open takes the lock that tells two writers of one output from one after the
// other: the kernel releases it with the process, however that ends.
func (p *player) open() (*os.File, error) {
	if p.Path == "" {
		return nil, nil
	}
	lock, err := os.OpenFile(p.Path+act.Writing, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		report, err := os.OpenFile(act.Overlaps, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(report, "%s %s\n", p.Mark, p.Path)
		report.Close()
	}
	return os.Create(p.Path) // the lock's file stays open until the process ends
}

// listen acts on lines of stdin as ffmpeg acts on its keys.
func (p *player) listen() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if lines.Text() == "q" {
			p.quit.Store(true)
		}
	}
}

// send writes a stream at its rate. Its last bytes wait for the cue.
func (p *player) send(w io.Writer, s act.Stream) (sent int64, err error) {
	from, buf, began := s.Reader(), make([]byte, piece), time.Now()
	for sent < s.Bytes && !p.quit.Load() {
		n := min(piece, s.Bytes-sent)
		if s.Rate > 0 {
			due := int64(time.Since(began).Seconds()*float64(s.Rate)) - sent
			if n = min(n, due); n <= 0 {
				time.Sleep(beat) // the rate is what is played
				continue
			}
		}
		if p.Cue != "" && s.Bytes-sent <= p.Tail {
			p.await()
		} else if p.Cue != "" {
			n = min(n, s.Bytes-p.Tail-sent)
		}
		if _, err := io.ReadFull(from, buf[:n]); err != nil {
			return sent, err
		}
		m, err := w.Write(buf[:n])
		sent += int64(m)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

func (p *player) await() {
	for {
		if _, err := os.Stat(p.Cue); err == nil {
			return
		}
		time.Sleep(beat) // a file cannot be waited for across containers
	}
}

// hog touches memory at 64 MiB a second.
func hog(bytes int64) {
	var all [][]byte
	for held := int64(0); held < bytes; held += 4 << 20 {
		b := make([]byte, 4<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
		time.Sleep(64 * time.Millisecond) // the rate is what is played
	}
	fmt.Fprintf(os.Stderr, "holds %d pieces\n", len(all))
}
