package output

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Remote reports whether dir, or its nearest ancestor that exists, lies on a file
// system whose files another machine may change: its answers come out of caches
// with a time limit.
func Remote(dir string) bool {
	for {
		var st unix.Statfs_t
		err := retry(func() error { return unix.Statfs(dir, &st) })
		if err == nil {
			return shared(uint32(st.Type))
		}
		parent := filepath.Dir(dir)
		if parent == dir || err != unix.ENOENT && err != unix.ENOTDIR {
			return false
		}
		dir = parent
	}
}

// shared knows the magic numbers of statfs(2). FUSE may be anything, so it counts:
// a local one costs a few system calls a second.
func shared(magic uint32) bool {
	switch magic {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC,
		unix.CEPH_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC,
		unix.CODA_SUPER_MAGIC, unix.OCFS2_SUPER_MAGIC,
		0x01161970, // GFS2
		0x0bd00bd0, // Lustre
		0x19830326, // BeeGFS
		0x20030528, // OrangeFS
		0x47504653, // GPFS
		0x786f4256, // VirtualBox's shared folders
		0xaad7aaea: // Panasas
		return true
	}
	return false
}
