// Package nfslike mounts a directory the way an NFS client shows it to one machine
// while another machine writes it: with caches. Whoever writes into the directory
// itself is the other machine.
//
// Names that do not exist are remembered for 30 s, names and attributes for as
// long as Caches says. As NFS does (close-to-open consistency), it asks the server
// again when somebody opens a directory, which makes changed and new names known,
// or a file, which makes its size known; and at no other time before the caches'
// own. It is FUSE, so it needs root and /dev/fuse.
package nfslike

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Caches are for how long answers are kept. The zero value keeps none.
type Caches struct {
	Names      time.Duration // that exist
	Negative   time.Duration // that do not
	Attributes time.Duration
}

// Default is what Linux does with NFS unless it is told otherwise, at its slowest.
func Default() Caches {
	return Caches{Names: 30 * time.Second, Negative: 30 * time.Second, Attributes: 30 * time.Second}
}

// Mount is one mounted directory.
type Mount struct {
	Path    string // where it is mounted
	Backing string // the directory itself: the server
	server  *fuse.Server

	mu    sync.Mutex
	gate  chan struct{} // not nil while the server does not answer
	syncs atomic.Int64
	opens atomic.Int64
}

// New mounts the directory backing at path; both must exist. Unmount it.
func New(backing, path string, c Caches) (*Mount, error) {
	m := &Mount{Path: path, Backing: backing}
	var st syscall.Stat_t
	if err := syscall.Stat(backing, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", backing, err)
	}
	data := &fs.LoopbackRoot{Path: backing, Dev: uint64(st.Dev)}
	root := m.node(&fs.LoopbackNode{RootData: data})
	data.RootNode = root
	server, err := fs.Mount(path, root, &fs.Options{
		EntryTimeout: &c.Names, NegativeTimeout: &c.Negative, AttrTimeout: &c.Attributes,
		NullPermissions: true,
		MountOptions: fuse.MountOptions{
			DirectMountStrict: true, AllowOther: true, DisableReadDirPlus: true,
			FsName: backing, Name: "nfslike",
		},
	})
	if err != nil {
		return nil, fmt.Errorf("mount %s at %s (it needs root and /dev/fuse): %w", backing, path, err)
	}
	m.server = server
	return m, nil
}

// Unmount ends it, whoever uses it.
func (m *Mount) Unmount() error {
	m.Answer()
	err := m.server.Unmount()
	if err == nil {
		return nil
	}
	if detached := unix.Unmount(m.Path, unix.MNT_DETACH|unix.MNT_FORCE); detached != nil {
		return fmt.Errorf("unmount %s: %w", m.Path, errors.Join(err, detached))
	}
	return nil
}

// Hang lets no call return that has to ask the server, until Answer.
func (m *Mount) Hang() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gate == nil {
		m.gate = make(chan struct{})
	}
}

// Answer ends Hang.
func (m *Mount) Answer() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gate != nil {
		close(m.gate)
		m.gate = nil
	}
}

// Syncs counts calls of fsync(2), Opens those of open(2).
func (m *Mount) Syncs() int64 { return m.syncs.Load() }

// Opens counts the calls of open(2) that reached the server.
func (m *Mount) Opens() int64 { return m.opens.Load() }

func (m *Mount) wait() {
	m.mu.Lock()
	gate := m.gate
	m.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (m *Mount) node(n *fs.LoopbackNode) *node {
	return &node{LoopbackNode: n, mount: m, absent: map[string]bool{}, known: map[string]uint64{}}
}

// node is one file or directory. For a directory it remembers what it told the
// kernel about its names, which is what the kernel may have in its caches.
type node struct {
	*fs.LoopbackNode
	mount *Mount

	mu     sync.Mutex
	absent map[string]bool   // told to be missing
	known  map[string]uint64 // told to be this inode
}

var (
	_ fs.NodeWrapChilder    = (*node)(nil)
	_ fs.NodeLookuper       = (*node)(nil)
	_ fs.NodeOpener         = (*node)(nil)
	_ fs.NodeOpendirHandler = (*node)(nil)
	_ fs.NodeGetattrer      = (*node)(nil)
	_ fs.NodeFsyncer        = (*node)(nil)
)

// WrapChild makes one of these of every node below.
func (n *node) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return n.mount.node(child.(*fs.LoopbackNode))
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.mount.wait()
	child, errno := n.LoopbackNode.Lookup(ctx, name, out)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch errno {
	case 0:
		n.known[name] = child.StableAttr().Ino
		delete(n.absent, name)
	case syscall.ENOENT:
		n.absent[name] = true
		delete(n.known, name)
	}
	return child, errno
}

func (n *node) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.mount.wait()
	return n.LoopbackNode.Getattr(ctx, f, out)
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	n.mount.wait()
	n.mount.opens.Add(1)
	n.NotifyContent(-1, 0) // the attributes only
	return n.LoopbackNode.Open(ctx, flags)
}

func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	n.mount.wait()
	n.mount.opens.Add(1)
	n.revalidate()
	return n.LoopbackNode.OpendirHandle(ctx, flags)
}

// Fsync counts; the kernel sends it for what was opened for reading, too.
func (n *node) Fsync(ctx context.Context, f fs.FileHandle, flags uint32) syscall.Errno {
	n.mount.wait()
	n.mount.syncs.Add(1)
	if file, ok := f.(fs.FileFsyncer); ok {
		return file.Fsync(ctx, flags)
	}
	return 0
}

// revalidate takes back what is not true any more about the directory's names, and
// its own attributes. What it says about files under an unchanged name stays.
func (n *node) revalidate() {
	dir := filepath.Join(n.mount.Backing, n.Path(nil))
	n.mu.Lock()
	var stale []string
	for name := range n.absent {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			stale = append(stale, name)
			delete(n.absent, name)
		}
	}
	for name, ino := range n.known {
		var st syscall.Stat_t
		if syscall.Lstat(filepath.Join(dir, name), &st) != nil || st.Ino != ino {
			stale = append(stale, name)
			delete(n.known, name)
		}
	}
	n.mu.Unlock()
	for _, name := range stale {
		n.NotifyEntry(name)
	}
	n.NotifyContent(-1, 0)
}
