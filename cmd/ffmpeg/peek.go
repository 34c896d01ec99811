package main

import (
	"bytes"
	"errors"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errQuit says that the caller pressed q before anything ran.
var errQuit = errors.New("the caller wrote q")

const (
	// peekAfter leaves a program that starts at once its keys: it answers a q
	// by closing its outputs properly.
	peekAfter = 500 * time.Millisecond
	// peekEvery is how often standard input is looked at then. ffmpeg itself
	// looks this often.
	peekEvery = 100 * time.Millisecond
)

// keys looks at standard input while a session waits: a q ends it, as Jellyfin
// expects within 5 s whatever the queue does. It takes nothing away: what it
// saw is still there for the program on the worker, for a local fallback, and
// for the caller's next command. It owns one goroutine; stop ends it and waits.
type keys struct {
	look func() []byte
	quit func()
	over chan struct{}
	once sync.Once
	done sync.WaitGroup
}

// watchKeys starts looking at fd unless it is of a kind that cannot be peeked
// at, such as a terminal.
func watchKeys(fd int, quit func()) *keys {
	k := &keys{quit: quit, over: make(chan struct{})}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return k
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		var own [2]int
		if unix.Pipe2(own[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
			return k
		}
		k.look = func() []byte { return teePeek(fd, own) }
		k.done.Go(func() {
			defer unix.Close(own[0])
			defer unix.Close(own[1])
			k.run()
		})
	case unix.S_IFSOCK:
		k.look = func() []byte { return socketPeek(fd) }
		k.done.Go(k.run)
	}
	return k
}

func (k *keys) run() {
	next := time.NewTimer(peekAfter)
	defer next.Stop()
	for {
		select {
		case <-k.over:
			return
		case <-next.C:
		}
		if bytes.IndexByte(k.look(), 'q') >= 0 {
			k.quit()
			return
		}
		next.Reset(peekEvery)
	}
}

// stop may be called more than once.
func (k *keys) stop() {
	k.once.Do(func() { close(k.over) })
	k.done.Wait()
}

// teePeek copies what a pipe holds without consuming it.
func teePeek(fd int, own [2]int) []byte {
	n, err := unix.Tee(fd, own[1], 4096, unix.SPLICE_F_NONBLOCK)
	if err != nil || n <= 0 {
		return nil
	}
	seen := make([]byte, n)
	got, err := unix.Read(own[0], seen)
	if err != nil {
		return nil
	}
	return seen[:got]
}

func socketPeek(fd int) []byte {
	seen := make([]byte, 4096)
	n, _, err := syscall.Recvfrom(fd, seen, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	if err != nil || n <= 0 {
		return nil
	}
	return seen[:n]
}
