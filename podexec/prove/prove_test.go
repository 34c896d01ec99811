package prove

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

// running runs a program as a supervisor would: in a group of its own.
func running(path string) func(context.Context, Command) Outcome {
	return func(ctx context.Context, c Command) Outcome {
		ctx, cancel := context.WithTimeout(ctx, c.Within)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, c.Args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Input), &out, &errs
		err := cmd.Run()
		o := Outcome{Stdout: out.Bytes(), Stderr: errs.String(), Stalled: ctx.Err() != nil}
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			o.Code = max(1, exit.ExitCode())
		} else if err != nil {
			o.Err = err
		}
		return o
	}
}

// machine is a root directory with device nodes, and makers of render nodes.
func machine(t *testing.T, nodes ...string) string {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range nodes {
		name, maker, _ := strings.Cut(node, "=")
		write("dev/"+name, "")
		if maker != "" {
			write("sys/class/drm/"+filepath.Base(name)+"/device/vendor", maker+"\n")
		}
	}
	return root
}

// fake sets what the fake ffmpeg claims and how it lies.
func fake(t *testing.T, env map[string]string) func(context.Context, Command) Outcome {
	t.Helper()
	if _, err := exec.LookPath("/usr/bin/ffmpeg"); err != nil {
		t.Skip("no /usr/bin/ffmpeg")
	}
	for name, value := range env {
		t.Setenv("FAKE_"+name, value)
	}
	path, err := filepath.Abs("testdata/ffmpeg")
	if err != nil {
		t.Fatal(err)
	}
	return running(path)
}

func flaw(r Report, capability string) string {
	for _, f := range r.Flaws {
		if f.Capability == capability {
			return f.Reason
		}
	}
	return ""
}

// wantFlaws checks that exactly the capabilities named are flawed, each for a reason
// with the words.
func wantFlaws(t *testing.T, r Report, want map[string]string) {
	t.Helper()
	for capability, words := range want {
		if got := flaw(r, capability); !strings.Contains(got, words) || got == "" {
			t.Errorf("%s: %q, want %q", capability, got, words)
		}
	}
	for _, f := range r.Flaws {
		if _, wanted := want[f.Capability]; !wanted {
			t.Errorf("%s is flawed: %s", f.Capability, f.Reason)
		}
		if slices.Contains(r.Capabilities, f.Capability) {
			t.Errorf("%s is a capability and a flaw", f.Capability)
		}
	}
}

func wantCan(t *testing.T, r Report, capabilities ...string) {
	t.Helper()
	for _, c := range capabilities {
		if !slices.Contains(r.Capabilities, c) {
			t.Errorf("%s is missing: %s", c, flaw(r, c))
		}
	}
}

// Debian's ffmpeg has NVENC, VAAPI, QSV and more compiled in. Where there is no
// device none of them is offered, and nobody waits for it.
func TestARealFFmpegWithoutHardware(t *testing.T) {
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("no ffmpeg")
	}
	runs := 0
	run := running(path)
	begun := time.Now()
	r, err := Prove(t.Context(), Config{Root: machine(t), Run: func(ctx context.Context, c Command) Outcome { runs++; return run(ctx, c) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d capabilities, %d flaws, %d runs, %s", len(r.Capabilities), len(r.Flaws), runs, time.Since(begun))
	wantCan(t, r, "encoder:libx264", "encoder:libx265", "decoder:h264", "decoder:aac", "filter:scale", "filter:hwupload")
	for _, c := range r.Capabilities {
		if slices.ContainsFunc(families(), func(f family) bool { return f.has(c) }) {
			t.Errorf("%s without hardware", c)
		}
	}
	if got := flaw(r, "encoder:h264_vaapi"); got != "no /dev/dri/renderD* in this pod" {
		t.Errorf("h264_vaapi: %q", got)
	}
	if runs != 4 {
		t.Errorf("%d runs: trials without a device", runs)
	}
	if n := r.Parallel(t.Context(), Config{Run: run}, 2); n != 0 {
		t.Errorf("%d encodes at once on no hardware", n)
	}
}

// A node that is there and does not work is a flaw in the driver's own words.
func TestARealFFmpegOnANodeThatIsNone(t *testing.T) {
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("no ffmpeg")
	}
	root := machine(t, "dri/renderD128=0x8086", "nvidia0", "nvidiactl")
	r, err := Prove(t.Context(), Config{Root: root, Run: running(path)})
	if err != nil {
		t.Fatal(err)
	}
	for capability, words := range map[string]string{
		"encoder:h264_vaapi": "Device creation failed", "device:vaapi": "Device creation failed", "filter:tonemap_vaapi": "Device creation failed",
		"encoder:h264_nvenc": "libcuda.so.1", "decoder:h264_cuvid": "libcuda.so.1",
	} {
		if got := flaw(r, capability); !strings.Contains(got, words) {
			t.Errorf("%s: %q, want %q", capability, got, words)
		}
	}
}

func nvidia() map[string]string {
	return map[string]string{
		"ENCODERS": "h264_nvenc hevc_nvenc av1_nvenc", "DECODERS": "h264_cuvid hevc_cuvid av1_cuvid vc1_cuvid",
		"FILTERS": "scale_cuda tonemap_cuda yadif_cuda tonemap_opencl", "HWACCELS": "cuda opencl",
	}
}

func TestHardwareThatWorks(t *testing.T) {
	tests := map[string]struct {
		nodes []string
		env   map[string]string
		can   []string
		flaws map[string]string
	}{
		"nvidia": {
			nodes: []string{"nvidia0", "nvidiactl"}, env: nvidia(),
			can: []string{
				"encoder:h264_nvenc", "encoder:hevc_nvenc", "encoder:av1_nvenc", "decoder:h264_cuvid", "decoder:av1_cuvid", "decoder:vc1_cuvid",
				"filter:scale_cuda", "filter:tonemap_cuda", "filter:yadif_cuda", "filter:tonemap_opencl",
				"hwaccel:cuda", "device:cuda", "device:opencl", "encoder:libx264",
			},
		},
		"intel": {
			nodes: []string{"dri/renderD128=0x8086"},
			env: map[string]string{
				"ENCODERS": "h264_qsv hevc_qsv mjpeg_qsv h264_vaapi h264_amf", "DECODERS": "h264_qsv hevc_qsv",
				"FILTERS": "vpp_qsv scale_qsv tonemap_vaapi scale_vaapi deinterlace_vaapi", "HWACCELS": "qsv vaapi drm",
			},
			can: []string{
				"encoder:h264_qsv", "encoder:mjpeg_qsv", "encoder:h264_vaapi", "decoder:hevc_qsv", "hwaccel:qsv", "hwaccel:vaapi", "device:drm",
				"filter:vpp_qsv", "filter:vpp_qsv=tonemap", "filter:tonemap_vaapi", "filter:deinterlace_vaapi",
			},
			flaws: map[string]string{"encoder:h264_amf": "of the maker 0x1002"},
		},
		"amd": {
			nodes: []string{"dri/renderD128=0x1002", "kfd"},
			env:   map[string]string{"ENCODERS": "h264_qsv h264_amf hevc_vaapi h264_omx", "HWACCELS": "vaapi vdpau qsv"},
			can:   []string{"encoder:h264_amf", "encoder:hevc_vaapi"},
			flaws: map[string]string{
				"encoder:h264_qsv": "of the maker 0x8086", "device:qsv": "of the maker", "hwaccel:qsv": "of the maker",
				"encoder:h264_omx": "no trial", "hwaccel:vdpau": "no trial", "device:vdpau": "no trial",
			},
		},
		"rockchip": {
			nodes: []string{"mpp_service", "video0"},
			env: map[string]string{
				"ENCODERS": "h264_rkmpp hevc_rkmpp h264_v4l2m2m", "DECODERS": "h264_rkmpp", "FILTERS": "scale_rkrga overlay_rkrga", "HWACCELS": "rkmpp",
			},
			can: []string{"encoder:h264_rkmpp", "decoder:h264_rkmpp", "filter:scale_rkrga", "filter:overlay_rkrga", "hwaccel:rkmpp", "encoder:h264_v4l2m2m"},
		},
		"an ffmpeg that does not know its device": {
			nodes: []string{"nvidia0"}, env: map[string]string{"ENCODERS": "h264_nvenc", "HWACCELS": "vaapi"},
			flaws: map[string]string{"encoder:h264_nvenc": "no device type cuda", "hwaccel:vaapi": "no /dev/dri", "device:vaapi": "no /dev/dri"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			run := fake(t, tc.env)
			r, err := Prove(t.Context(), Config{Run: run, Root: machine(t, tc.nodes...)})
			if err != nil {
				t.Fatal(err)
			}
			wantCan(t, r, tc.can...)
			wantFlaws(t, r, tc.flaws)
		})
	}
}

// What ffmpeg lists and cannot do is never a capability.
func TestLies(t *testing.T) {
	tests := map[string]struct {
		lie   map[string]string
		can   []string
		flaws map[string]string
	}{
		"an encoder fails": {
			lie:   map[string]string{"FAIL": "hevc_nvenc", "SAYS": "Provided device doesn't support required NVENC features"},
			can:   []string{"encoder:h264_nvenc", "decoder:hevc_cuvid"},
			flaws: map[string]string{"encoder:hevc_nvenc": "Provided device doesn't support required NVENC features"},
		},
		"an encoder writes nothing": {
			lie:   map[string]string{"EMPTY": "av1_nvenc"},
			can:   []string{"encoder:h264_nvenc"},
			flaws: map[string]string{"encoder:av1_nvenc": "encoded nothing"},
		},
		"frames are lost": {
			lie:   map[string]string{"SHORT": "hevc_nvenc av1_cuvid"},
			can:   []string{"encoder:h264_nvenc", "decoder:hevc_cuvid"},
			flaws: map[string]string{"encoder:hevc_nvenc": "encoded 2 frames of 5", "decoder:av1_cuvid": "decoded 2 frames of 5"},
		},
		"decoders fail": {
			lie: map[string]string{"FAIL": "h264_cuvid hevc_cuvid av1_cuvid hwaccel-cuda"},
			can: []string{"encoder:h264_nvenc", "device:cuda"},
			flaws: map[string]string{
				"decoder:h264_cuvid": "it does not work", "decoder:hevc_cuvid": "", "decoder:av1_cuvid": "",
				"decoder:vc1_cuvid": "no other decoder", "hwaccel:cuda": "it does not work",
			},
		},
		"tone mapping fails": {
			lie:   map[string]string{"FAIL": "tonemap_cuda tonemap_opencl"},
			can:   []string{"filter:scale_cuda", "device:opencl"},
			flaws: map[string]string{"filter:tonemap_cuda": "it does not work", "filter:tonemap_opencl": "it does not work"},
		},
		"the device does not open": {
			lie: map[string]string{"FAIL": "cuda", "SAYS": "cuInit(0) failed -> CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"},
			can: []string{"filter:tonemap_opencl", "encoder:libx264"},
			flaws: map[string]string{
				"device:cuda": "CUDA_ERROR_NO_DEVICE", "hwaccel:cuda": "", "encoder:h264_nvenc": "CUDA_ERROR_NO_DEVICE", "encoder:hevc_nvenc": "", "encoder:av1_nvenc": "",
				"decoder:h264_cuvid": "", "decoder:hevc_cuvid": "", "decoder:av1_cuvid": "", "decoder:vc1_cuvid": "",
				"filter:scale_cuda": "", "filter:tonemap_cuda": "", "filter:yadif_cuda": "",
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			env := nvidia()
			for k, v := range tc.lie {
				env[k] = v
			}
			r, err := Prove(t.Context(), Config{Run: fake(t, env), Root: machine(t, "nvidia0")})
			if err != nil {
				t.Fatal(err)
			}
			wantCan(t, r, tc.can...)
			wantFlaws(t, r, tc.flaws)
		})
	}
}

// A driver that hangs costs two bounds, whatever is listed, and is told as that.
func TestAStalledTrial(t *testing.T) {
	env := nvidia()
	env["STALL"] = "h264_nvenc hevc_nvenc"
	run := fake(t, env)
	r, err := Prove(t.Context(), Config{Root: machine(t, "nvidia0"), Run: func(ctx context.Context, c Command) Outcome {
		if slices.Contains(c.Args, "h264_nvenc") || slices.Contains(c.Args, "hevc_nvenc") {
			c.Within = 100 * time.Millisecond
		}
		return run(ctx, c)
	}})
	if err != nil {
		t.Fatal(err)
	}
	wantCan(t, r, "device:cuda", "encoder:av1_nvenc", "filter:tonemap_opencl")
	wantFlaws(t, r, map[string]string{
		"encoder:h264_nvenc": "stalled", "encoder:hevc_nvenc": "stalled",
		"decoder:h264_cuvid": "2 trials of this hardware stalled", "decoder:hevc_cuvid": "not tried", "decoder:av1_cuvid": "not tried", "decoder:vc1_cuvid": "no other",
		"hwaccel:cuda": "not tried", "filter:scale_cuda": "not tried", "filter:tonemap_cuda": "not tried",
	})
}

// A driver that gives so many sessions is asked by opening them.
func TestParallel(t *testing.T) {
	env := nvidia()
	env["CAP"], env["DIR"] = "2", t.TempDir()
	conf := Config{Run: fake(t, env), Root: machine(t, "nvidia0"), Within: time.Minute}
	r, err := Prove(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	for slots, want := range map[int]int{1: 1, 4: 2} {
		if n := r.Parallel(t.Context(), conf, slots); n != want {
			t.Errorf("of %d at once %d passed, want %d", slots, n, want)
		}
	}
}

// Of a list that cannot be read nothing is claimed.
func TestAListThatCannotBeRead(t *testing.T) {
	t.Run("a program that fails", func(t *testing.T) {
		r, err := Prove(t.Context(), Config{Root: machine(t, "nvidia0"), Run: running("/bin/false")})
		if err != nil || len(r.Capabilities) != 0 {
			t.Errorf("%v, %v", r.Capabilities, err)
		}
		wantFlaws(t, r, map[string]string{"encoder:*": "exit status 1", "decoder:*": "", "filter:*": "", "hwaccel:*": ""})
	})
	for text, want := range map[string]string{
		"":           "begins with",
		"encoders\n": "begins with",
		"Encoders:\n V..... = Video\n ------\n V....D libx264   x\nlibx265\n":     "unknown form",
		"Encoders:\n V..... = Video\n ------\n V....D libx264   x\n V..... = V\n": "unknown form",
		"Encoders:\n V....D $(reboot)   x\n":                                      "unknown form",
	} {
		if names, err := grammars()[Encoder].parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v", text, names, err)
		}
	}
	for kind, text := range map[string]string{
		Encoder: "Encoders:\n V..... = Video\n .....D = Supports\n ------\n V....D b   x\n A....D a_1-2   y (codec z)\n",
		Filter:  "Filters:\n  T.. = Timeline\n  | = Source\n ... a_1-2     V->V    x\n TSC b         |->N    y\n",
		Hwaccel: "Hardware acceleration methods:\na_1\nb\n\n",
	} {
		names, err := grammars()[kind].parse(text)
		if err != nil || len(names) != 2 || names[1] != "b" {
			t.Errorf("%s: %q, %v", kind, names, err)
		}
	}
	// The release of 2025 has no column for commands, and a rule above the names.
	if names, err := grammars()[Filter].parse("Filters:\n  T. = Timeline support\n  .S = Slice threading\n ------\n TS scale      V->V       x\n"); err != nil || len(names) != 1 {
		t.Errorf("%q, %v", names, err)
	}
}

// Whatever an ffmpeg prints, a name is a name, and a reason is one line.
func FuzzOutput(f *testing.F) {
	f.Add("Encoders:\n V..... = Video\n ------\n V....D libx264   x\n")
	f.Add("Filters:\n ... a_1-2     V->V    x\n")
	f.Add("Hardware acceleration methods:\ncuda\n\n")
	f.Add("[h264_nvenc @ 0x1] OpenEncodeSessionEx failed: out of memory (10)\r\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		for kind, g := range grammars() {
			names, err := g.parse(text)
			for _, name := range names {
				if err != nil || name == "" || strings.ContainsAny(name, " :=*,\n\x00") {
					t.Errorf("%s: %q, %v", kind, name, err)
				}
			}
		}
		for _, words := range []string{reason(text), DeviceError(text)} {
			if strings.ContainsAny(words, "\n\r\x00") || !utf8.ValidString(words) {
				t.Errorf("%q", words)
			}
		}
	})
}

func TestDeviceError(t *testing.T) {
	tests := map[string]string{
		"frame=  1\r\n[h264_nvenc @ 0x55] OpenEncodeSessionEx failed: out of memory (10): (no details)\nConversion failed!\n": "OpenEncodeSessionEx failed: out of memory (10): (no details)",
		"[hevc_qsv @ 0x55] Error during encoding: device lost (-13)\n":                                                        "Error during encoding: device lost (-13)",
		"[AVHWDeviceContext @ 0x1] cuCtxCreate failed -> CUDA_ERROR_UNKNOWN: unknown error\n":                                 "cuCtxCreate failed -> CUDA_ERROR_UNKNOWN: unknown error",
		"/media/a.mkv: No such file or directory\n":                                                                           "",
		"": "",
	}
	for stderr, want := range tests {
		if got := DeviceError(stderr); got != want {
			t.Errorf("%q: %q, want %q", stderr, got, want)
		}
	}
	for _, x := range troubles() {
		if x.source == "" || DeviceError("x "+x.text+" y") == "" {
			t.Errorf("%+v", x)
		}
	}
}

func TestReason(t *testing.T) {
	long := strings.Repeat("é", 200)
	for stderr, want := range map[string]string{
		"": "",
		"[a @ 0x1] [b @ 0x2] first\n\n  second \nthird\n": "first; second",
		"a\x00b\xff\n": "a b?",
	} {
		if got := reason(stderr); got != want {
			t.Errorf("%q: %q, want %q", stderr, got, want)
		}
	}
	if got := reason(long + "\n" + long); len(got) > reasonBytes+20 {
		t.Errorf("%d bytes", len(got))
	}
}

// A worker that serves sessions must not lose its encoders to a driver that has no
// session left for a trial, and must lose those that are broken.
func TestKeep(t *testing.T) {
	before := Report{Capabilities: []string{"encoder:av1_nvenc", "encoder:h264_nvenc"}, encoding: []string{"x"}}
	after := Report{Capabilities: []string{"encoder:libx264"}, Flaws: []Flaw{
		{"encoder:av1_nvenc", "Device lost"},
		{"encoder:h264_nvenc", "OpenEncodeSessionEx failed: out of memory (10)"},
		{"encoder:hevc_nvenc", "OpenEncodeSessionEx failed: out of memory (10)"},
	}}
	kept := after.Keep(before)
	if !slices.Equal(kept.Capabilities, []string{"encoder:h264_nvenc", "encoder:libx264"}) || len(kept.Flaws) != 2 || kept.encoding == nil {
		t.Errorf("%+v", kept)
	}
}

func TestANodeOfOthers(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may open everything")
	}
	root := machine(t, "dri/renderD128")
	if err := os.Chmod(filepath.Join(root, "dev/dri/renderD128"), 0); err != nil {
		t.Fatal(err)
	}
	for _, f := range families() {
		if f.device == "vaapi" {
			if _, err := f.present(root); err == nil || !strings.Contains(err.Error(), "supplementalGroups") {
				t.Errorf("%v", err)
			}
		}
	}
}
