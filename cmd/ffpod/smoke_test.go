package main

import (
	"context"
	"strings"
	"testing"

	"github.com/ffpod/ffpod/scheduler/api"
)

func line(where, reason string) string {
	return `2026-11-23T02:50:11.1Z pid=7 program=ffmpeg kind=other where=` + where + ` reason="` + reason + `"` + "\n"
}

// TestReadLog has the shim's own lines: what counts as the work of a worker.
func TestReadLog(t *testing.T) {
	cases := map[string]struct {
		stderr        string
		code          int
		session, want string
	}{
		"worker":         {line("remote", "it encodes") + line("remote", "session abc"), 0, "abc", ""},
		"tried again":    {line("remote", "it encodes") + line("remote", "session abc") + line("remote", "session def"), 0, "def", ""},
		"fell back":      {line("remote", "it encodes") + line("remote", "session abc") + line("local", "no worker"), 0, "", "it ran in the pod itself: no worker"},
		"mode local":     {line("local", "the mode is local"), 0, "", "FFPOD_MODE"},
		"refused":        {line("remote", "it encodes") + line("nowhere", "no CA") + "ffmpeg: ffpod: no CA to trust the scheduler by: x; mount it\n", 125, "", "exit 125: ffmpeg: ffpod: no CA"},
		"lost":           {line("remote", "session abc") + line("lost", "the worker is gone"), 125, "", "exit 125: the worker is gone"},
		"encoder failed": {line("remote", "it encodes") + line("remote", "session abc") + "Unknown encoder 'h264_nvenc'\n", 8, "", "Unknown encoder"},
		"not the shim":   {"env: '/opt/ffpod/ffmpeg': No such file or directory\n", 127, "", "did not decide anything (exit 127)"},
		"never asked":    {line("remote", "it encodes"), 0, "", "no worker did the work"},
	}
	for name, c := range cases {
		session, err := readLog(c.stderr, c.code)
		if session != c.session || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v", name, session, err)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: not one line", name)
		}
	}
}

func TestAwaitEnd(t *testing.T) {
	states := []api.Session{
		{ID: "a", State: "running", Pod: "w"},
		{ID: "a", State: "ended", Pod: "w", Node: "n", Exit: &api.Exit{}},
	}
	n := 0
	x, err := awaitEnd(t.Context(), "a", func(context.Context) (api.Status, error) {
		n++
		return api.Status{Sessions: []api.Session{{ID: "b", State: "ended", Exit: &api.Exit{}}, states[min(n, 2)-1]}}, nil
	})
	if err != nil || x.Pod != "w" || n != 2 {
		t.Errorf("%+v, %v after %d", x, err, n)
	}
	_, err = awaitEnd(t.Context(), "a", func(context.Context) (api.Status, error) {
		return api.Status{Sessions: []api.Session{{ID: "a", State: "lost", Failed: true, Exit: &api.Exit{Cause: "pod w was deleted"}}}}, nil
	})
	if err == nil || !strings.Contains(err.Error(), "lost: pod w was deleted") {
		t.Error(err)
	}
}

func TestSmokeArgs(t *testing.T) {
	for _, encoder := range []string{"libx264", "h264_nvenc", "hevc_qsv", "h264_vaapi"} {
		if args, err := smokeArgs(encoder); err != nil || args[len(args)-1] != "-" || args[len(args)-4] != encoder {
			t.Errorf("%s: %v, %v", encoder, args, err)
		}
	}
	if _, err := smokeArgs("mpeg4; rm -rf /"); err == nil {
		t.Error("an unknown encoder")
	}
}
