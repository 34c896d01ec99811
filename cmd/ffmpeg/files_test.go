package main

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/podexec/wire"
)

// told is what a worker says about a file.
func told(t *testing.T, name string, more int64) *wire.File {
	t.Helper()
	st, err := os.Stat(name)
	if err != nil {
		return &wire.File{Path: []byte(name), Size: more}
	}
	return &wire.File{Path: []byte(name), Size: st.Size() + more, MtimeNs: st.ModTime().UnixNano()}
}

// serveFiles is serve for sessions that write beside the scheduler's own files.
func serveFiles(t *testing.T, run func(s *scheduler, p *peer) error) *scheduler {
	t.Helper()
	made := make(chan *scheduler, 1)
	s := serve(t, serverName, func(p *peer) error {
		s := <-made
		made <- s
		return run(s, p)
	})
	made <- s
	return s
}

func TestStartTellsOutputs(t *testing.T) {
	got := make(chan []*wire.Output, 1)
	s := serve(t, serverName, func(p *peer) error {
		got <- p.start.Outputs
		p.begin()
		p.exit(&wire.Exit{})
		return nil
	})
	call{args: s.player(), env: s.settings}.run(t)
	var have []string
	for _, o := range <-got {
		have = append(have, fmt.Sprintf("%s %s %v", o.Directory, o.Prefix, o.Exact))
	}
	if diff := cmp.Diff([]string{s.dir + " a false", s.dir + " init false"}, have); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
}

// TestExitWaitsForOutputs: the caller looks for the last segment right after the
// exit, and takes what it finds for the whole.
func TestExitWaitsForOutputs(t *testing.T) {
	wrote := make(chan time.Time, 1)
	s := serveFiles(t, func(s *scheduler, p *peer) error {
		s.write("a0.ts", "0123456789")
		files := []*wire.File{told(t, s.file("a0.ts"), 0), told(t, s.file("a1.ts"), 5), told(t, "/etc/no-such-file", 5)}
		p.begin()
		p.exit(&wire.Exit{Files: files})
		<-time.After(300 * time.Millisecond) // the file system's delay
		wrote <- time.Now()
		s.write("a1.ts", "01234")
		return nil
	})
	r := call{args: s.player(), env: s.settings}.run(t)
	if r.code != 0 || strings.Contains(r.stderr, "visible") {
		t.Fatalf("%+v", r)
	}
	select {
	case <-wrote:
	default:
		t.Error("the shim was gone before its output came")
	}
}

// TestExitWithoutOutputs: ten seconds later a success is none, and a failure
// stays what it is, after two.
func TestExitWithoutOutputs(t *testing.T) {
	for name, tt := range map[string]struct {
		code  int32
		more  int64
		least time.Duration
		words string
	}{
		"missing": {code: 0, more: 5, least: 10 * time.Second, words: "a1.ts is missing here and 5 bytes on the worker"},
		"failed":  {code: 7, more: 5, least: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveFiles(t, func(s *scheduler, p *peer) error {
				p.begin()
				p.exit(&wire.Exit{Code: tt.code, Files: []*wire.File{told(t, s.file("a1.ts"), tt.more)}})
				return nil
			})
			began := time.Now()
			r := call{args: append([]string{"-nostdin"}, s.player()...), env: s.settings}.run(t)
			if took := time.Since(began); took < tt.least || took > tt.least+5*time.Second {
				t.Errorf("it waited %s, want %s", took, tt.least)
			}
			if tt.words == "" {
				if r.code != int(tt.code) || strings.Contains(r.stderr, "visible") {
					t.Errorf("%+v", r)
				}
				return
			}
			if r.code != 125 || !strings.Contains(r.stderr, tt.words) || !strings.Contains(r.stderr, "lookupcache=none") {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestLostSubtitle: half a subtitle would be taken for the whole, for good.
func TestLostSubtitle(t *testing.T) {
	for name, tt := range map[string]struct {
		args func(s *scheduler) []string
		want string // what is left
	}{
		"subtitle": {
			args: func(s *scheduler) []string {
				return []string{"-nostdin", "-i", s.file("in.mkv"), "-c:s", "srt", s.file("new.srt"), "-c:s", "srt", s.file("old.srt")}
			},
			want: "bystander.srt new.srt.mp4 old.srt",
		},
		"film": {
			args: func(s *scheduler) []string {
				return []string{"-nostdin", "-i", s.file("in.mkv"), "-c:v", "mpeg4", s.file("new.srt.mp4")}
			},
			want: "bystander.srt new.srt new.srt.mp4 old.srt",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveFiles(t, func(s *scheduler, p *peer) error {
				p.begin()
				for _, name := range []string{"new.srt", "new.srt.mp4", "old.srt", "bystander.srt"} {
					s.write(name, "12")
				}
				p.send(&wire.Lost{Message: "worker gone"})
				return status.Error(codes.Unavailable, "going away")
			})
			s.write("old.srt", "1")
			r := call{args: tt.args(s), env: append(s.settings, "FFPOD_MODE=remote")}.run(t)
			r.ours(t, "was lost")
			var left []string
			for _, name := range []string{"bystander.srt", "new.srt", "new.srt.mp4", "old.srt"} {
				if _, err := os.Lstat(s.file(name)); err == nil {
					left = append(left, name)
				}
			}
			if diff := cmp.Diff(tt.want, strings.Join(left, " ")); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			if removed := strings.Contains(r.stderr, "removed what it had begun: "+s.file("new.srt")+")"); removed != (name == "subtitle") {
				t.Errorf("stderr is %q", r.stderr)
			}
		})
	}
}

// TestLostSubtitleOfANewerSession: what another session of the pod has written since
// is not what the lost one left.
func TestLostSubtitleOfANewerSession(t *testing.T) {
	begun, lose := make(chan struct{}), make(chan struct{})
	var sessions atomic.Int32
	s := serveFiles(t, func(s *scheduler, p *peer) error {
		if sessions.Add(1) == 1 {
			p.begin()
			close(begun)
			<-lose
			p.send(&wire.Lost{Message: "worker gone"})
			return status.Error(codes.Unavailable, "going away")
		}
		p.begin()
		s.write("new.srt", "whole")
		p.exit(&wire.Exit{})
		return nil
	})
	c := call{args: []string{"-nostdin", "-y", "-i", s.file("in.mkv"), "-c:s", "srt", s.file("new.srt")}, env: append(s.settings, "FFPOD_MODE=remote")}
	wait, _ := s.awaiting(t, c, begun)
	if r := c.run(t); r.code != 0 {
		t.Errorf("the newer: %+v", r)
	}
	close(lose)
	r := wait()
	r.ours(t, "was lost")
	if b, err := os.ReadFile(s.file("new.srt")); string(b) != "whole" || strings.Contains(r.stderr, "removed") {
		t.Errorf("the newer session's output is %q, %v", b, err)
	}
}
