package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// asShell lets a shell play the real ffprobe, which is always local.
var asShell = []string{"FFPOD_FFPROBE=/bin/sh"}

// self prints what a process inherits and execve carries. Pipes have numbers
// that differ from run to run; they are tested by their bytes elsewhere. The
// shell reads its status itself: while it forks it blocks every signal.
const self = `cd /proc/$$ || exit 1
tr '\0' '\n' <environ | grep -v '^FFPOD_'
while read -r l; do case $l in Umask*|SigBlk*|SigIgn*|NoNewPrivs*|Seccomp:*) echo "$l";; esac; done <status
cat limits
cut -d' ' -f1,4,5,6,18,19 stat
ls -l fd | sed -n 's/.* \([0-9]* -> \)/\1/p' | grep -v pipe:`

// TestLocalIsTheSameProcess compares a process started directly with one
// started through the shim.
func TestLocalIsTheSameProcess(t *testing.T) {
	extra, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	script := "umask 027; ulimit -n 512; trap '' HUP; nice -n 3 \"$0\" -c '" + strings.ReplaceAll(self, "'", `'"'"'`) + "'"
	seen := map[string]string{}
	for _, program := range []string{"/bin/sh", filepath.Join(built, "ffprobe")} {
		r := call{program: "/bin/sh", args: []string{"-c", script, program}, env: append([]string{"A=1", "EMPTY=", "TEXT=a b\tc"}, asShell...), extra: []*os.File{extra, extra}}.run(t)
		if r.code != 0 || r.stderr != "" {
			t.Fatalf("%s: %+v", program, r)
		}
		if !strings.Contains(r.stdout, "Umask:\t0027") || !strings.Contains(r.stdout, "4 -> /etc/passwd") || !strings.Contains(r.stdout, "TEXT=a b") {
			t.Fatalf("the listing lacks what it must show: %s", r.stdout)
		}
		seen[filepath.Base(program)] = anyPID(r.stdout)
	}
	if diff := cmp.Diff(seen["sh"], seen["ffprobe"]); diff != "" {
		t.Errorf("the shim changed the process (-direct +shim):\n%s", diff)
	}
}

// anyPID blanks the process ids, which differ between two runs.
func anyPID(listing string) string {
	lines := strings.Split(listing, "\n")
	for i, l := range lines {
		if f := strings.Fields(l); len(f) == 6 {
			if _, err := strconv.Atoi(f[0]); err == nil {
				lines[i] = "priority and nice " + strings.Join(f[4:], " ")
			}
		}
	}
	return strings.Join(lines, "\n")
}

func TestLocalKeepsThePID(t *testing.T) {
	cmd := call{program: "ffprobe", args: []string{"-c", "echo $$"}, env: asShell}.command()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(out)), strconv.Itoa(cmd.Process.Pid); got != want {
		t.Errorf("pid %s, want %s", got, want)
	}
}

func TestLocalArgv(t *testing.T) {
	args := []string{"-c", `tr '\0' '|' </proc/$$/cmdline`, "", "a\nb", "ü\xff'\"\\", "%d", ""}
	got := call{program: "ffprobe", args: args, env: asShell}.run(t)
	if want := "/bin/sh|" + strings.Join(args, "|") + "|"; got.stdout != want {
		t.Errorf("argv %q, want %q", got.stdout, want)
	}
}

func TestLocalEnds(t *testing.T) {
	for _, code := range []int{0, 1, 2, 69, 123, 125, 126, 254, 255} {
		if r := (call{program: "ffprobe", args: []string{"-c", "exit " + strconv.Itoa(code)}, env: asShell}).run(t); r.code != code || r.signal != 0 || r.stderr != "" {
			t.Errorf("exit %d: %+v", code, r)
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGPIPE, syscall.SIGQUIT, syscall.SIGUSR1} {
		if r := (call{program: "ffprobe", args: []string{"-c", "ulimit -c 0; kill -" + strconv.Itoa(int(sig)) + " $$"}, env: asShell}).run(t); r.signal != sig || r.stderr != "" {
			t.Errorf("signal %d: %+v", sig, r)
		}
	}
}

// TestLocalRealFFmpeg needs no setting at all: PATH leads to the shim first and
// to the real program second.
func TestLocalRealFFmpeg(t *testing.T) {
	path := "PATH=" + built + ":" + os.Getenv("PATH")
	for _, program := range []string{"ffmpeg", "ffprobe"} {
		want, err := exec.Command(map[string]string{"ffmpeg": realFFmpeg, "ffprobe": realFFprobe}[program], "-version").Output()
		if err != nil {
			t.Fatal(err)
		}
		r := call{program: program, args: []string{"-version"}, env: []string{path}}.run(t)
		if r.stdout != string(want) || r.code != 0 || r.stderr != "" {
			t.Errorf("%s -version: %+v, want %q", program, r, want)
		}
	}
	r := call{args: []string{"-hide_banner", "-i", "/nonexistent.mkv", "-f", "null", "-"}, env: []string{path}}.run(t)
	if r.code == 0 || r.code == 125 || !strings.Contains(r.stderr, "No such file") {
		t.Errorf("a missing input: %+v", r)
	}
}

// TestWhileReadLoop: ffmpeg in the body of a loop must leave the loop its lines.
func TestWhileReadLoop(t *testing.T) {
	refused := func(p *peer) error {
		p.send(refusedWith(9, "the queue is full", "wait"))
		return nil
	}
	runs := func(p *peer) error {
		if p.start.Stdin {
			t.Error("stdin is wanted despite -nostdin")
		}
		p.begin()
		p.exit(&wireExit{})
		return nil
	}
	cases := map[string]struct {
		session func(*peer) error
		env     []string
		flag    string
	}{
		"local":       {refused, []string{"FFPOD_MODE=local"}, "-nostdin"},
		"remote":      {runs, nil, "-nostdin"},
		"refused":     {refused, nil, "-nostdin"},
		"unreachable": {refused, []string{"FFPOD_ADDRESS=127.0.0.1:1"}, "-nostdin"},
		"no CA":       {refused, []string{"FFPOD_CA_FILE=/nonexistent"}, "-nostdin"},
		// Without -nostdin the real ffmpeg itself would read on, so the shim
		// must not have when nothing runs at all.
		"failed": {refused, []string{"FFPOD_FALLBACK=fail"}, "-stdin"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := serve(t, serverName, c.session)
			script := `i=0; while read -r line; do "$0" ` + c.flag + ` -v quiet -f lavfi -i color=size=16x16:duration=0.04 -c:v mpeg4 -f null - ; echo "$line"; done`
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			go func() {
				defer w.Close()
				_, _ = io.WriteString(w, "one\ntwo\nthree\n")
			}()
			got := call{program: "/bin/sh", args: []string{"-c", script, filepath.Join(built, "ffmpeg")}, env: append(s.settings, c.env...), stdin: r}.run(t)
			if got.stdout != "one\ntwo\nthree\n" {
				t.Errorf("the loop saw %q; stderr %s", got.stdout, got.stderr)
			}
		})
	}
}

func TestRealBinary(t *testing.T) {
	copied := filepath.Join(t.TempDir(), "copy")
	b, err := os.ReadFile(filepath.Join(built, "ffmpeg"))
	if err == nil {
		err = os.WriteFile(copied, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		env  string
		want string
	}{
		"missing":      {"FFPOD_FFMPEG=/nonexistent/ffmpeg", "FFPOD_FFMPEG=/nonexistent/ffmpeg: no such file or directory"},
		"directory":    {"FFPOD_FFMPEG=/tmp", "no regular file"},
		"no program":   {"FFPOD_FFMPEG=/etc/passwd", "permission denied"},
		"the shim":     {"FFPOD_FFMPEG=" + filepath.Join(built, "ffmpeg"), "the shim itself"},
		"a link to it": {"FFPOD_FFMPEG=" + filepath.Join(built, "ffprobe"), "the shim itself"},
		"a copy of it": {"FFPOD_FFMPEG=" + copied, "the shim itself"},
		"nowhere":      {"PATH=" + built + ":relative", "no real binary found"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			call{args: []string{"-version"}, env: []string{c.env}}.run(t).ours(t, "ffmpeg: ffpod: the real ffmpeg cannot be run here", c.want, "set FFPOD_FFMPEG")
		})
	}
}

func TestSettings(t *testing.T) {
	for _, env := range []string{
		"FFPOD_MODE=lokal", "FFPOD_FALLBACK=yes", "FFPOD_POLICY=cold", "FFPOD_CLASS=My_Class", "FFPOD_WAIT=30", "FFPOD_WAIT=-1s",
		"FFPOD_SHARED=/media:", "FFPOD_SHARED=media", "FFPOD_ADDRESS=host", "FFPOD_ADDRESS=host:0", "FFPOD_FFMPEG=ffmpeg",
		"FFPOD_FFPROBE=x", "FFPOD_TOKEN_FILE=token", "FFPOD_CA_FILE=ca", "FFPOD_LOG=log",
	} {
		name, value, _ := strings.Cut(env, "=")
		r := call{args: []string{"-version"}, env: []string{env}}.run(t)
		r.ours(t, "ffmpeg: ffpod: settings: ", name, strconv.Quote(value), "; correct or unset it")
	}
	if r := (call{args: []string{"-version"}, env: []string{"FFPOD_MODE=", "FFPOD_WAIT=", "FFPOD_SCHEDULER_SERVICE_HOST=10.0.0.1"}}).run(t); r.code != 0 {
		t.Errorf("empty and unknown variables: %+v", r)
	}
}

func TestName(t *testing.T) {
	odd := filepath.Join(t.TempDir(), "ffplay")
	if err := os.Symlink(filepath.Join(built, "ffmpeg"), odd); err != nil {
		t.Fatal(err)
	}
	call{program: odd}.run(t).ours(t, "ffplay", "ffmpeg or ffprobe", "ffpod install shim")
}

func TestLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for range 2 {
		call{args: []string{"-version"}, env: []string{"FFPOD_LOG=" + file}}.run(t)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(b); strings.Count(got, "\n") != 2 || !strings.Contains(got, "program=ffmpeg kind=probe where=local reason=") {
		t.Errorf("log %q", got)
	}
}

// TestImports keeps the shim small: it starts for each probe of a library scan.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, no := range []string{"k8s.io/", "sigs.k8s.io/", "github.com/jackc/", "go.uber.org/zap", "github.com/spf13/"} {
			if strings.HasPrefix(dep, no) {
				t.Errorf("the shim links %s", dep)
			}
		}
	}
	if !strings.Contains(string(out), "google.golang.org/grpc\n") {
		t.Error("the list of dependencies is not the shim's")
	}
}
