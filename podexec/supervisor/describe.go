package supervisor

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ffpod/ffpod/podexec/buildid"
	"github.com/ffpod/ffpod/podexec/wire"
)

// about is what a worker knows of its programs. It is learned beside the first
// sessions, never before them: a Job's start waits for nothing.
type about struct {
	mu                     sync.Mutex
	build, ffmpeg, ffprobe string
}

// learn fills a. The build id comes from the file; the versions cost a run of
// each program, which the one session of a Job shall not pay for; a standby has time.
func (a *about) learn(ctx context.Context, conf Config, children *forking) {
	build, _ := buildid.Of(conf.FFmpeg)
	a.mu.Lock()
	a.build = build
	a.mu.Unlock()
	if conf.Once && !conf.Standby {
		return
	}
	ffmpeg, ffprobe := firstLine(ctx, conf.FFmpeg, children), firstLine(ctx, conf.FFprobe, children)
	a.mu.Lock()
	a.ffmpeg, a.ffprobe = ffmpeg, ffprobe
	a.mu.Unlock()
}

// firstLine runs a program for its version. The child is registered, so that the
// reaper of PID 1 leaves it to Wait.
func firstLine(ctx context.Context, path string, children *forking) string {
	if path == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out strings.Builder
	cmd := exec.CommandContext(ctx, path, "-version")
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second // a wrapper may leave its stdout to somebody
	children.Lock()
	err := cmd.Start()
	if err == nil {
		children.adopt(cmd.Process.Pid)
	}
	children.Unlock()
	if err != nil {
		return ""
	}
	err = cmd.Wait()
	children.forget(cmd.Process.Pid)
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return ""
	}
	line, _, _ := strings.Cut(out.String(), "\n")
	return strings.ToValidUTF8(line, "?")
}

// Describe implements wire.SupervisorServer.
func (s *Supervisor) Describe(context.Context, *wire.DescribeRequest) (*wire.Description, error) {
	if s.conf.Standby {
		select {
		case s.asked <- struct{}{}:
		default:
		}
	}
	d := &wire.Description{
		Resumes: true,
		Nonce:   s.nonce, Version: s.conf.Version, Class: s.conf.Class, Slots: uint32(s.conf.Slots), Once: s.conf.Once,
		Pod: s.conf.Pod, PodUid: s.conf.PodUID, Node: s.conf.Node,
		Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid()),
		Devices: devices(), Mounts: mounts(),
	}
	groups, _ := os.Getgroups()
	for _, g := range groups {
		d.Groups = append(d.Groups, uint32(g))
	}
	s.about.mu.Lock()
	d.FfmpegBuild, d.FfmpegVersion, d.FfprobeVersion = s.about.build, s.about.ffmpeg, s.about.ffprobe
	s.about.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	d.Draining = s.draining
	d.Sessions = slices.Clone(s.records)
	for _, r := range s.running {
		if r != nil {
			d.Sessions = append(d.Sessions, r.state())
		}
	}
	for id, start := range s.starting { // it has a slot, and is about to write its outputs
		d.Sessions = append(d.Sessions, &wire.SessionState{Session: id, Record: start.Record})
	}
	return d, nil
}

// devices lists the device files that a GPU or capture device plugin gives.
func devices() []string {
	var all []string
	for _, pattern := range []string{"/dev/dri/*", "/dev/nvidia*", "/dev/kfd", "/dev/video*", "/dev/mpp_service", "/dev/dxg"} {
		found, _ := filepath.Glob(pattern)
		for _, path := range found {
			if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeDevice != 0 {
				all = append(all, path)
			}
		}
	}
	return all
}

// mounts lists the volumes of the pod: what is neither the container's own root
// nor the kernel's.
func mounts() []*wire.Mount {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil
	}
	defer f.Close()
	var all []*wire.Mount
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || kernelOwn(fields[1], fields[2]) {
			continue
		}
		all = append(all, &wire.Mount{Path: strings.ToValidUTF8(unescape(fields[1]), "?"), Fs: fields[2], Writable: slices.Contains(strings.Split(fields[3], ","), "rw")})
	}
	return all
}

func kernelOwn(path, fs string) bool {
	switch fs {
	case "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "overlay":
		return true
	}
	return path == "/" || path == "/dev" || strings.HasPrefix(path, "/dev/") || strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/sys/") || strings.HasPrefix(path, "/etc/")
}

// unescape undoes the octal escapes of /proc/self/mounts, see getmntent(3).
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}
