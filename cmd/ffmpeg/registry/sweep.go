package registry

import (
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Each command looks at a few files of others, at random: it leaves fewer behind
// than it removes, so the registry stays small without anybody's care.
const (
	sweepList = 256
	sweepMost = 6
)

// sweep removes some files that nobody holds and that tell of nothing.
func (r *Registry) sweep() {
	names := r.list(sweepList)
	if len(names) == 0 {
		return
	}
	first := rand.IntN(len(names))
	for i := range min(sweepMost, len(names)) {
		name := names[(first+i)%len(names)]
		if name == bornFile {
			continue
		}
		fd, err := r.lock(name, unix.LOCK_EX, 0)
		if err != nil {
			continue
		}
		r.remove(fd, name)
		_ = unix.Close(fd)
	}
}

// list returns some names of the directory. Its own descriptor: the position in
// the directory belongs to it.
func (r *Registry) list(most int) []string {
	fd, err := unix.Openat(r.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	buf := make([]byte, 8<<10)
	var names []string
	for len(names) < most {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	return names
}

// remove removes a file that tells of nothing any more, if nobody else holds it.
// The caller has it locked, in whatever way, and closes it.
func (r *Registry) remove(fd int, name string) {
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil || !linked(fd) {
		return
	}
	if id, session := strings.CutPrefix(name, "s-"); session {
		if r.mayLive(id) {
			return
		}
	} else if len(r.remnants(read(fd))) > 0 {
		return
	}
	_ = unix.Unlinkat(r.dir, name, 0)
}

// mayLive is remnant for a session's file that the caller has locked itself.
func (r *Registry) mayLive(id string) bool {
	rem, _ := r.remnant(id) // its lock is ours, so it looks alive
	return rem.Placed && time.Now().Before(rem.dead)
}
