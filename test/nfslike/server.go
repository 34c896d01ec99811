package nfslike

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// mounted is the server's side of a Mount: it serves the kernel's requests.
type mounted struct {
	backing string
	server  *fuse.Server

	mu    sync.Mutex
	gate  chan struct{} // not nil while the server does not answer
	syncs atomic.Int64
	opens atomic.Int64
}

// serve mounts backing at path.
func serve(backing, path string, c Caches) (*mounted, error) {
	m := &mounted{backing: backing}
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

// hang lets no call return that has to ask the server, until answer.
func (m *mounted) hang() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gate == nil {
		m.gate = make(chan struct{})
	}
}

func (m *mounted) answer() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gate != nil {
		close(m.gate)
		m.gate = nil
	}
}

func (m *mounted) wait() {
	m.mu.Lock()
	gate := m.gate
	m.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (m *mounted) node(n *fs.LoopbackNode) *node {
	return &node{LoopbackNode: n, mount: m, absent: map[string]bool{}, known: map[string]uint64{}}
}

// node is one file or directory. For a directory it remembers what it told the
// kernel about its names, which is what the kernel may have in its caches.
type node struct {
	*fs.LoopbackNode
	mount *mounted

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
	dir := filepath.Join(n.mount.backing, n.Path(nil))
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
