package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Remote is a writer about to run on a worker.
type Remote struct {
	Keys    []string
	Session string
	// Say is called at most once, when somebody is waited for. It may be nil.
	Say func(what string)
	// Log is called with what went wrong and changes nothing. It may be nil.
	Log func(problem string)
	// Wait is for how long to wait for a writer that runs here. Defaults to 5 s.
	Wait time.Duration
}

// Hold keeps a session's outputs in the registry for the life of its shim. It owns
// a goroutine from Placed until Ended or Close. Its methods may be called from any
// goroutine; all of them do nothing on a nil Hold, so that a caller without
// outputs or without a registry needs no other way.
//
//	Remote ──▶ Placed, before the ticket is acknowledged ──▶ Ended: its end is known, or it never started
//	                                                    └──▶ Close, or SIGKILL: the record stays for who comes next
type Hold struct {
	reg     *Registry
	session string
	file    int      // the session's
	names   []string // of the keys' files
	keys    []int

	mu      sync.Mutex
	over    bool
	rec     record
	stop    chan struct{}
	renewer sync.WaitGroup
}

// Remote returns a hold when no writer runs here: the caller may go to the
// scheduler, which fences it against other sessions. A *BusyError and the cause of
// ctx say that it must not. With any other error nothing is held, and the registry
// is of no use. The hold uses the registry: close that later.
func (r *Registry) Remote(ctx context.Context, m Remote) (*Hold, error) {
	if m.Wait == 0 {
		m.Wait = defaultWait
	}
	if m.Log == nil {
		m.Log = func(string) {}
	}
	if !validSession(m.Session) {
		return nil, fmt.Errorf("register session %q: it cannot be the name of a file", m.Session)
	}
	h := &Hold{reg: r, session: m.Session, file: -1, names: names(m.Keys), stop: make(chan struct{}), rec: record{Session: m.Session, PID: os.Getpid()}}
	if err := h.take(ctx, m); err != nil {
		h.Ended()
		return nil, err
	}
	r.sweep()
	return h, nil
}

// take locks everything. What cannot be written is only missed by who comes after
// a SIGKILL of this process.
func (h *Hold) take(ctx context.Context, m Remote) error {
	deadline := time.Now().Add(m.Wait)
	var err error
	// The session's file comes first: a key's file must not name what is not there.
	if h.file, err = h.reg.patiently(ctx, sessionFile(h.session), unix.LOCK_EX, &m, deadline); err != nil {
		return err
	}
	if err := h.write(); err != nil {
		m.Log(err.Error())
	}
	for _, name := range h.names {
		fd, err := h.reg.patiently(ctx, name, unix.LOCK_SH, &m, deadline)
		if err != nil {
			return err
		}
		h.keys = append(h.keys, fd)
		if _, err := unix.Write(fd, []byte(h.session+"\n")); err != nil { // O_APPEND: a whole line at the end
			m.Log(fmt.Sprintf("write %s/%s: %v", h.reg.path, name, err))
		}
	}
	return nil
}

// patiently takes a lock, in time.
func (r *Registry) patiently(ctx context.Context, name string, how int, m *Remote, deadline time.Time) (int, error) {
	flags := unix.O_CREAT
	if how == unix.LOCK_SH {
		flags |= unix.O_APPEND // several write
	}
	for {
		fd, err := r.lock(name, how, flags)
		if !errors.Is(err, errBusy) {
			return fd, err
		}
		if late := time.Now().After(deadline); late || m.Say != nil {
			who, _ := r.holder(name)
			if late {
				return -1, &BusyError{Holder: who, Waited: m.Wait}
			}
			m.Say(who + " still writes the same outputs")
			m.Say = nil
		}
		if err := sleep(ctx, pause); err != nil {
			return -1, err
		}
	}
}

// write replaces the session's record, which renews it too.
func (h *Hold) write() error {
	if _, err := unix.Pwrite(h.file, h.rec.bytes(), 0); err != nil {
		return fmt.Errorf("write %s/%s: %w", h.reg.path, sessionFile(h.session), err)
	}
	return nil
}

// Placed notes where the session is about to start and for how long its worker
// keeps it when nobody is attached (the ticket's grace). It is called before the
// ticket is acknowledged: nothing can have started yet.
func (h *Hold) Placed(worker string, grace time.Duration) error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return nil
	}
	first := !h.rec.Placed
	h.rec.Placed, h.rec.Worker, h.rec.Bound = true, worker, (grace + Margin).Milliseconds()
	if first {
		h.renewer.Go(h.renew)
	}
	return h.write()
}

// renew keeps the record fresh: the bound counts from the last time.
func (h *Hold) renew() {
	tick := time.NewTicker(renewal)
	defer tick.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-tick.C:
			h.mu.Lock()
			_ = h.write() // the record is there already: only its time stays behind
			h.mu.Unlock()
		}
	}
}

// Alone tells whether no other session of this pod may have written the outputs since
// this one asked for them. No writer that runs here can have: the locks are held.
func (h *Hold) Alone() bool {
	if h == nil {
		return true
	}
	for _, fd := range h.keys {
		_, since, _ := bytes.Cut(read(fd), []byte(h.session+"\n"))
		for line := range strings.Lines(string(since)) {
			other, waits := h.reg.remnant(strings.TrimSuffix(line, "\n"))
			if !waits || other.Placed { // it has ended, or it may run
				return false
			}
		}
	}
	return true
}

// Ended lets go of the outputs: the session's exit is known, or it never started.
func (h *Hold) Ended() { h.end(true) }

// Close lets go of the locks and leaves the record: the session may live on. To
// call it is not necessary before the process ends.
func (h *Hold) Close() { h.end(false) }

func (h *Hold) end(known bool) {
	if h == nil {
		return
	}
	h.mu.Lock()
	over := h.over
	h.over = true
	h.mu.Unlock()
	if over {
		return
	}
	close(h.stop)
	h.renewer.Wait()
	if known && h.file >= 0 {
		h.reg.forget(h.session)
	}
	for i, fd := range h.keys {
		if known {
			h.reg.remove(fd, h.names[i])
		}
		_ = unix.Close(fd)
	}
	if h.file >= 0 {
		_ = unix.Close(h.file)
	}
}
