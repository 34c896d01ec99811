package gpu_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/test/kubectl"
)

// home is where sessions leave their words and outputs, on the volume that the client
// and all workers share.
const home = "/cache/gpu"

// session is one command that the client pod runs through the shim.
type session struct {
	name string // unique in the run
	argv []string
	env  []string
}

// result is what is left of a session.
type result struct {
	name, id string
	code     int // -1: it runs
	stderr   string
	log      string // of the shim
}

// line is a line of the scheduler's log.
type line struct {
	Message    string  `json:"msg"`
	Session    string  `json:"session"`
	Class      string  `json:"class"`
	Worker     string  `json:"worker"`
	Placement  string  `json:"placement"`
	Reason     string  `json:"reason"`
	Exit       string  `json:"exit"`
	Cause      string  `json:"cause"`
	Error      string  `json:"error"`
	Why        string  `json:"why"`
	For        string  `json:"for"`
	Translated string  `json:"translated"`
	Queued     float64 `json:"queued"`    // seconds
	Launching  float64 `json:"launching"` // seconds
}

// source is a test picture of so many seconds; a live one takes them to make.
func source(seconds int, live bool) []string {
	in := []string{"-f", "lavfi", "-i", fmt.Sprintf("testsrc2=s=160x120:r=10:d=%d", seconds)}
	if live {
		in = append([]string{"-re"}, in...)
	}
	return in
}

// hls is a playback by an encoder, on a device that the options before the input open.
func hls(name string, before, input, filter []string, encoder string) session {
	argv := slices.Concat([]string{"-v", "error", "-y"}, before, input, filter,
		[]string{"-c:v", encoder, "-f", "hls", "-hls_time", "1", "-hls_list_size", "0", home + "/" + name + ".m3u8"})
	return session{name: name, argv: argv}
}

func onVAAPI(name, encoder string, input []string) session {
	return hls(name, []string{"-init_hw_device", "vaapi=va:/dev/dri/renderD128", "-filter_hw_device", "va"}, input,
		[]string{"-vf", "format=nv12,hwupload"}, encoder)
}

// playback is one as a class's maker has it; of class cpu in software.
func playback(name, class string, input []string) session {
	switch class {
	case nvidia:
		return hls(name, []string{"-init_hw_device", "cuda=cu:0", "-filter_hw_device", "cu"}, input, []string{"-vf", "format=nv12,hwupload_cuda"}, "h264_nvenc")
	case intel:
		return hls(name, []string{"-init_hw_device", "vaapi=va:/dev/dri/renderD128", "-init_hw_device", "qsv=qs@va", "-filter_hw_device", "qs"}, input,
			[]string{"-vf", "format=nv12,hwupload=extra_hw_frames=16"}, "h264_qsv")
	case amd:
		return onVAAPI(name, "h264_vaapi", input)
	}
	return hls(name, nil, input, nil, "libx264")
}

// long is a playback that runs until it is stopped.
func long(name, class string) session { return playback(name, class, source(600, true)) }

func (s session) with(env ...string) session {
	s.env = append(slices.Clone(s.env), env...)
	return s
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// begin starts sessions in the client pod. The shim's stderr is a pipe, as a server's is.
func begin(ctx context.Context, all ...session) {
	GinkgoHelper()
	var b strings.Builder
	fmt.Fprintf(&b, "cd %s\n", home)
	for _, s := range all {
		words := make([]string, len(s.argv))
		for i, a := range s.argv {
			words[i] = quote(a)
		}
		env := make([]string, len(s.env))
		for i, e := range s.env {
			env[i] = quote(e)
		}
		fmt.Fprintf(&b, `( { env FFPOD_LOG=$PWD/%[1]s.log FFPOD_MODE=remote %[2]s sh -c 'echo $$ >%[1]s.pid; exec "$0" "$@"' /opt/ffpod/ffmpeg %[3]s; echo $? >%[1]s.ended; } 2>&1 >/dev/null </dev/null | cat >%[1]s.err; mv %[1]s.ended %[1]s.code ) >/dev/null 2>&1 </dev/null &
`, s.name, strings.Join(env, " "), strings.Join(words, " "))
	}
	_, err := kubectl.New(namespace).Run(ctx, strings.NewReader(b.String()), "exec", "-i", "deploy/ffpod-client", "--", "sh", "-s")
	Expect(err).NotTo(HaveOccurred())
}

var idInLog = regexp.MustCompile(`session ([0-9a-f-]{36})`)

// results are those of every session begun.
func results(ctx context.Context) map[string]*result {
	GinkgoHelper()
	out := do(ctx, "exec", "deploy/ffpod-client", "--", "sh", "-c", "cd "+home+"; grep -H '' *.pid *.log *.err *.code 2>/dev/null; true")
	all := map[string]*result{}
	for text := range strings.Lines(out) {
		file, rest, _ := strings.Cut(strings.TrimSuffix(text, "\n"), ":")
		name, part, _ := strings.Cut(file, ".")
		r := all[name]
		if r == nil {
			r = &result{name: name, code: -1}
			all[name] = r
		}
		switch part {
		case "log":
			r.log += rest + "\n"
			if id := idInLog.FindStringSubmatch(rest); id != nil {
				r.id = id[1]
			}
		case "err":
			r.stderr += rest + "\n"
		case "code":
			r.code, _ = strconv.Atoi(rest)
		}
	}
	return all
}

// end waits until sessions are over.
func end(ctx context.Context, names ...string) map[string]*result {
	GinkgoHelper()
	var all map[string]*result
	Eventually(func(g Gomega) {
		all = results(ctx)
		for _, name := range names {
			g.Expect(all).To(HaveKey(name))
			g.Expect(all[name].code).To(BeNumerically(">=", 0), "%s runs; %s%s", name, all[name].stderr, all[name].log)
		}
	}).WithContext(ctx).WithTimeout(specBound).Should(Succeed())
	return all
}

func one(ctx context.Context, s session) *result {
	GinkgoHelper()
	begin(ctx, s)
	return end(ctx, s.name)[s.name]
}

// stop ends sessions as a player's server does.
func stop(ctx context.Context, names ...string) {
	GinkgoHelper()
	for i, name := range names {
		names[i] = name + ".pid"
	}
	do(ctx, "exec", "deploy/ffpod-client", "--", "sh", "-c", "cd "+home+"; kill $(cat "+strings.Join(names, " ")+") 2>/dev/null; true")
}

// stopAll ends every session, and waits until nothing of any is left.
func stopAll(ctx context.Context) {
	GinkgoHelper()
	var alive []string
	for _, r := range results(ctx) {
		if r.code < 0 {
			alive = append(alive, r.name)
		}
	}
	if len(alive) > 0 {
		stop(ctx, slices.Clone(alive)...)
		end(ctx, alive...)
	}
	Eventually(func() []api.Session {
		return slices.DeleteFunc(status(ctx).Sessions, func(s api.Session) bool { return !s.Runs() && !s.Waits() })
	}).WithContext(ctx).WithTimeout(soon).Should(BeEmpty())
}

// log reads the scheduler's.
func log(ctx context.Context) (lines []line) {
	GinkgoHelper()
	for text := range bytes.Lines([]byte(do(ctx, "logs", "deploy/ffpod-scheduler"))) {
		var l line
		if json.Unmarshal(text, &l) == nil {
			lines = append(lines, l)
		}
	}
	return lines
}

// audit is the line of a session that is over.
func audit(ctx context.Context, r *result) line {
	GinkgoHelper()
	Expect(r.id).NotTo(BeEmpty(), "%s tells no session: %s%s", r.name, r.log, r.stderr)
	var found line
	Eventually(func(g Gomega) {
		lines := log(ctx)
		i := slices.IndexFunc(lines, func(l line) bool { return l.Session == r.id && l.Message == "session ended" })
		g.Expect(i).To(BeNumerically(">=", 0))
		found = lines[i]
	}).WithContext(ctx).WithTimeout(soon).Should(Succeed())
	return found
}

// seen is what `ffpod status` says of a session now.
func seen(ctx context.Context, name string) api.Session {
	GinkgoHelper()
	r := results(ctx)[name]
	if r == nil || r.id == "" {
		return api.Session{}
	}
	for _, s := range status(ctx).Sessions {
		if s.ID == r.id {
			return s
		}
	}
	return api.Session{}
}

// runs waits until a session runs, and returns how it was placed.
func runs(ctx context.Context, name string) (s api.Session) {
	GinkgoHelper()
	Eventually(func() string {
		if s = seen(ctx, name); s.State != "running" && s.State != "" && !s.Runs() && !s.Waits() {
			StopTrying(fmt.Sprintf("%s is over: %+v %+v", name, s, results(ctx)[name])).Now()
		}
		return s.State
	}).WithContext(ctx).WithTimeout(soon).Should(Equal("running"), func() string { return fmt.Sprintf("%+v %+v", s, results(ctx)[name]) })
	return s
}

// waits waits until a session is in the queue for a reason that has these words.
func waits(ctx context.Context, name string, words ...string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		s := seen(ctx, name)
		g.Expect(s.Waits()).To(BeTrue(), "%+v", s)
		for _, w := range words {
			g.Expect(s.Reason).To(ContainSubstring(w))
		}
	}).WithContext(ctx).WithTimeout(soon).Should(Succeed())
}

// complete says that a playlist was written to its end.
func complete(ctx context.Context, name string) {
	GinkgoHelper()
	Expect(do(ctx, "exec", "deploy/ffpod-client", "--", "tail", "-n", "1", home+"/"+name+".m3u8")).To(Equal("#EXT-X-ENDLIST"))
}

func names(all map[string]string) []string { return slices.Sorted(maps.Keys(all)) }
