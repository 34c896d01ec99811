package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultBound is how long a worker keeps a session that nobody is attached to,
	// unless a ticket says otherwise, and Margin on top.
	DefaultBound = 5*time.Minute + Margin
	// Margin covers what comes beside the grace: the renewal may be a period old, a
	// silent connection is noticed after 20 s, and the end itself takes q, TERM and
	// KILL.
	Margin = time.Minute
	// mostBound is believed at most.
	mostBound = 25 * time.Hour
	// renewal is the period in which a shim renews its session's file.
	renewal = 5 * time.Second
)

// record is the content of a session's file.
type record struct {
	Session string `json:"session"`
	PID     int    `json:"pid"` // of the shim
	// Placed says that the session may have started: its ticket was held.
	Placed bool   `json:"placed"`
	Worker string `json:"worker,omitempty"`
	Bound  int64  `json:"bound_ms,omitempty"` // from the last renewal
}

// recordSize is a fixed size: one write replaces a whole record.
const recordSize = 512

func (rec record) bytes() []byte {
	b, err := json.Marshal(rec)
	if err != nil || len(b) >= recordSize {
		rec.Worker = ""
		b, _ = json.Marshal(rec)
	}
	b = append(b, bytes.Repeat([]byte(" "), max(0, recordSize-1-len(b)))...)
	return append(b, '\n')
}

func (rec record) words() string {
	s := "session " + rec.Session
	if rec.Worker != "" {
		s += " on worker " + rec.Worker
	}
	return s
}

func sessionFile(session string) string { return "s-" + session }

// validSession keeps ids within the directory.
func validSession(id string) bool {
	return id != "" && len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// remnant is a session in a key's file whose end nobody has noted.
type remnant struct {
	record
	alive bool      // its shim is
	dead  time.Time // when it is gone at the latest
}

// remnants reads a key's file: the sessions that may still write.
func (r *Registry) remnants(content []byte) []remnant {
	var list []remnant
	for line := range strings.Lines(string(content)) {
		id := strings.TrimSuffix(line, "\n")
		if !validSession(id) {
			continue
		}
		if rem, ok := r.remnant(id); ok {
			list = append(list, rem)
		}
	}
	return list
}

// remnant looks a session up. False: it is over.
func (r *Registry) remnant(id string) (remnant, bool) {
	fd, err := unix.Openat(r.dir, sessionFile(id), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return remnant{}, false
	}
	defer unix.Close(fd)
	rem := remnant{alive: unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) != nil}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return remnant{}, false
	}
	if err := json.Unmarshal(read(fd), &rem.record); err != nil {
		// No memory to write to, or the shim died before it did. Without a record
		// there is no ticket.
		return remnant{record: record{Session: id}, alive: rem.alive}, rem.alive
	}
	rem.Session = id
	if strings.ContainsFunc(rem.Worker, func(c rune) bool { return c <= ' ' }) {
		rem.Worker = "" // no pod's name
	}
	bound := time.Duration(min(max(rem.Bound, 0), mostBound.Milliseconds())) * time.Millisecond
	now := time.Now()
	rem.dead = time.Unix(st.Mtim.Unix()).Add(bound)
	if latest := now.Add(bound); rem.dead.After(latest) { // the clock was set back
		rem.dead = latest
	}
	return rem, rem.alive || rem.Placed && now.Before(rem.dead)
}

// forget removes a session's file: its end is known.
func (r *Registry) forget(id string) {
	_ = unix.Unlinkat(r.dir, sessionFile(id), 0)
}

// runsHere is the content of a key's file while its writer runs here. It is as
// long for every pid.
func runsHere(pid int) []byte { return fmt.Appendf(nil, "pid %-10d\n", pid) }

// holder words who a key's file says holds it.
func (r *Registry) holder(name string) (words string, remote bool) {
	fd, err := unix.Openat(r.dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return "another process of this pod", false
	}
	defer unix.Close(fd)
	content := read(fd)
	for _, rem := range r.remnants(content) {
		if rem.alive {
			return fmt.Sprintf("%s (process %d)", rem.words(), rem.PID), true
		}
	}
	line, _, _ := strings.Cut(string(content), "\n")
	if n, ok := strings.CutPrefix(line, "pid "); ok {
		if pid, err := strconv.Atoi(strings.TrimSpace(n)); err == nil {
			return fmt.Sprintf("process %d", pid), false
		}
	}
	return "another process of this pod", false
}
