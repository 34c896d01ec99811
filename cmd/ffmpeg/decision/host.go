package decision

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// maxList bounds a concat list or filter script: larger ones are left unread,
// which keeps the command local.
const maxList = 1 << 20

// newHost gives scheduler/ffmpeg the machine to look at. dir is empty when the
// working directory was deleted; relative paths then stay relative.
func newHost(getenv func(string) string) ffmpeg.Host {
	dir, err := syscall.Getwd()
	if err != nil {
		dir = ""
	}
	return ffmpeg.Host{
		Dir:      dir,
		Report:   getenv("FFREPORT"),
		ReadFile: readList,
		Stat: func(name string) (fs.FileMode, error) {
			info, err := os.Stat(name)
			if err != nil {
				return 0, err
			}
			return info.Mode(), nil
		},
	}
}

// readList does not block, whatever the name turned into since it was stat-ed.
func readList(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read list %s: it is no regular file", name)
	case info.Size() > maxList:
		return nil, fmt.Errorf("read list %s: %d bytes are more than %d", name, info.Size(), maxList)
	}
	return io.ReadAll(io.LimitReader(f, maxList))
}

// ownHost tells whether a host is an address of this pod that others can reach.
func ownHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.IsLoopback() {
		return false
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr() == ip.Unmap()
	})
}
