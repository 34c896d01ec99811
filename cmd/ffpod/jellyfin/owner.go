package jellyfin

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// sameOwner gives a file the owner of another one: whoever applies settings as
// root must not take Jellyfin's files from it.
func sameOwner(name string, like fs.FileInfo) error {
	st, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid() {
		return nil
	}
	if err := os.Chown(name, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("%w; run it as uid %d, gid %d", err, st.Uid, st.Gid)
	}
	return nil
}
