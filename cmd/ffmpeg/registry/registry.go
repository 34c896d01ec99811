package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MaxKeys is how many outputs of one command are looked after.
	MaxKeys = 64
	// defaultWait is what a writer that its caller has killed may take to die.
	defaultWait = 5 * time.Second
	// pause lies between two looks at a busy lock.
	pause = 3 * time.Millisecond
	// firstFD is where the descriptors that a program inherits begin.
	firstFD = 200
)

// ErrSuperseded is what Clear returns when a newer session writes the outputs.
var ErrSuperseded = errors.New("a newer session writes the same outputs")

// BusyError says that another writer of the pod did not end in time.
type BusyError struct {
	Holder string // in words: "process 17", "session x (process 17)"
	Waited time.Duration
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s still writes the same outputs after %s", e.Holder, e.Waited.Round(100*time.Millisecond))
}

// Registry is the pod's. It is not safe for concurrent use; what it hands out is
// used by whoever asked for it.
type Registry struct {
	dir  int
	path string
}

// Open finds or makes the registry: in /dev/shm, else in the directory for
// temporary files.
func Open() (*Registry, error) { return openIn("/dev/shm", os.TempDir()) }

func openIn(dirs ...string) (*Registry, error) {
	var problems []error
	for _, d := range dirs {
		r, err := openOne(d + "/ffpod-" + strconv.Itoa(os.Geteuid()))
		if err == nil {
			return r, nil
		}
		problems = append(problems, err)
	}
	return nil, errors.Join(problems...)
}

func openOne(name string) (*Registry, error) {
	if err := unix.Mkdir(name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make registry %s: %w", name, err)
	}
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open registry %s: %w", name, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && (int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0) {
		err = errors.New("it is not this user's alone")
	}
	r := &Registry{dir: fd, path: name}
	if err == nil {
		err = r.birth(&st)
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("use registry %s: %w", name, err)
	}
	return r, nil
}

// Close lets go of the registry. Holds live on.
func (r *Registry) Close() { _ = unix.Close(r.dir) }

const bornFile = "born"

// birth makes sure that the registry's age can be told.
func (r *Registry) birth(st *unix.Stat_t) error {
	if err := unix.Fstatat(r.dir, bornFile, st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return nil
	}
	fd, err := unix.Openat(r.dir, bornFile, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// young tells whether a session that was begun before the registry was made may
// still live.
func (r *Registry) young() bool {
	var st unix.Stat_t
	if err := unix.Fstatat(r.dir, bornFile, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return true
	}
	return time.Since(time.Unix(st.Mtim.Unix())) < DefaultBound
}

// keyFile names the file of an output key.
func keyFile(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "k-" + hex.EncodeToString(sum[:16])
}

// names returns the files of a command's keys in the one order in which locks are
// taken: no two commands can each wait for the other.
func names(keys []string) []string {
	list := make([]string, 0, min(len(keys), MaxKeys))
	for _, k := range keys[:cap(list)] {
		list = append(list, keyFile(k))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// errBusy says that somebody holds a lock.
var errBusy = errors.New("it is locked")

// lock opens a file and locks it without waiting. It returns a file that is still
// in the directory: whoever removes one holds its exclusive lock.
func (r *Registry) lock(name string, how, flags int) (int, error) {
	for range 100 {
		fd, err := unix.Openat(r.dir, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK|flags, 0o600)
		if err != nil {
			return -1, fmt.Errorf("open %s/%s: %w", r.path, name, err)
		}
		err = unix.Flock(fd, how|unix.LOCK_NB)
		if err == nil {
			if linked(fd) {
				return fd, nil
			}
			_ = unix.Close(fd)
			continue // removed between the two calls
		}
		_ = unix.Close(fd)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return -1, errBusy
		}
		return -1, fmt.Errorf("lock %s/%s: %w", r.path, name, err)
	}
	return -1, errBusy
}

// linked tells whether an open file is still in its directory, and ours.
func linked(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Nlink > 0 && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// sleep waits, or says why not.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// maxFile bounds what is read of a file: 20,000 sessions of one key.
const maxFile = 1 << 20

// read returns the content of a file.
func read(fd int) []byte {
	var b []byte
	for chunk := make([]byte, 4<<10); len(b) < maxFile; {
		n, err := unix.Pread(fd, chunk, int64(len(b)))
		if err != nil || n <= 0 {
			break
		}
		if b = append(b, chunk[:n]...); n < len(chunk) {
			break
		}
	}
	return b
}
