package jellyfin

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// Vector is one command line of a real server, with its call site's ways.
type Vector struct {
	Name    string
	Program string
	Argv    []string
	Dir     string // working directory; empty: the server's
	Pipes   string // which of 0, 1, 2 are redirected
	Stdin   string // "?": that byte and the end; "closed": the end at once; else open
	Only    Flavour
	Nice    bool
	Seconds int // then the tree is killed
	// Copies are made before the start: by source, the destination.
	Copies  map[string]string
	Outputs []string // directories, or files that exist before the start
	Quit    string   // q is written when this file has some bytes
	Varies  bool     // where q meets it: only the kinds of streams are the same each time
	Parses  string   // what the server looks for on stderr: text, lufs, silence
	// Exit is that of the real ffmpeg; unknown where a GPU decides.
	Exit *int
	GPU  string // needs a device of this type
	// Where and Kind are what ffpod must make of it.
	Where ffmpeg.Where
	// Egress: it goes to a worker where one may read from its caller.
	Egress bool
	Kind   ffmpeg.Kind
}

//go:embed testdata/vectors.jsonl
var vectorLines []byte

// Vectors are all of them.
func Vectors() ([]Vector, error) {
	var all []Vector
	for lines := bufio.NewScanner(bytes.NewReader(vectorLines)); lines.Scan(); {
		var v Vector
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			return nil, fmt.Errorf("vector %d: %w", len(all)+1, err)
		}
		all = append(all, v)
	}
	return all, nil
}

// vectors runs those of the order.
func (s *Server) vectors(ctx context.Context, o Order, r *Report) error {
	all, err := Vectors()
	if err != nil {
		return err
	}
	if err := s.learn(ctx); err != nil {
		return fmt.Errorf("features of %s: %w", o.Bare, err)
	}
	slots := make(chan struct{}, max(1, o.Parallel))
	var running sync.WaitGroup
	for _, v := range all {
		if len(o.Vectors) > 0 && !slices.Contains(o.Vectors, v.Name) || v.Only != "" && v.Only != s.Flavour {
			continue
		}
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			run := &vectorRun{s: s, v: v, r: r, home: "/cache/v/" + v.Name}
			if seen, err := run.do(ctx); r.check(v.Name, err) {
				r.see(v.Name, seen)
			}
		})
	}
	running.Wait()
	return nil
}

// learn takes the features from the real ffmpeg, whatever the way.
func (s *Server) learn(ctx context.Context) error {
	bare := &Server{Flavour: V12_0, ffmpeg: s.bare, ffprobe: lastComponent.ReplaceAllString(s.bare, "ffprobe$1"), env: os.Environ()}
	f, err := bare.Validate(ctx, "")
	s.Features = f
	return err
}

// vectorRun is one vector with files of its own.
type vectorRun struct {
	s    *Server
	v    Vector
	r    *Report
	home string
}

// here puts the text's paths where this run has them.
func (r *vectorRun) here(text string) string {
	return strings.NewReplacer("/cache/", r.s.path(r.home)+"/", "/media/", r.s.path("/media")+"/", "//TUNER", "//"+r.s.tuner.address).Replace(text)
}

func (r *vectorRun) do(ctx context.Context) (Seen, error) {
	if err := r.prepare(); err != nil {
		return Seen{}, err
	}
	watch := watchFiles(r.dirs())
	defer watch.end()
	began := time.Now()
	argv := r.s.Features.Adapt(r.v.Argv)
	for i, a := range argv {
		argv[i] = r.here(a)
	}
	c := Command{
		Program: r.v.Program, Args: argv, Dir: r.here(r.v.Dir), BelowNormal: r.v.Nice,
		Stdin: strings.Contains(r.v.Pipes, "0"), Stdout: strings.Contains(r.v.Pipes, "1"), Stderr: strings.Contains(r.v.Pipes, "2"),
	}
	p, err := r.s.Start(ctx, c)
	if err != nil {
		return Seen{}, err
	}
	defer p.Close()
	stdout, stderr, err := r.attend(ctx, p)
	if err != nil {
		return Seen{}, err
	}
	seen := Seen{Exit: p.ExitCode(), Where: p.Where(), Stdout: sum(stdout), Seconds: time.Since(began).Seconds()}
	seen.Files = r.files()
	log, held := p.Log()
	if held != nil {
		return seen, held
	}
	for _, problem := range append(watch.end(), r.later(seen.Files)...) {
		r.r.problem("%s: %s", r.v.Name, problem)
	}
	if len(stdout) < 4096 && strings.ToValidUTF8(string(stdout), "") == string(stdout) {
		seen.Text = string(stdout)
	}
	if text := string(stderr) + log; r.v.Parses != "" {
		seen.Parsed = parse(r.v.Parses, text)
	} else {
		seen.Said = r.said(text)
	}
	for _, line := range strings.Split(string(stderr)+log, "\n") {
		if argv, ok := strings.CutPrefix(line, toldArgv); ok {
			seen.Parsed = append(seen.Parsed, strings.ReplaceAll(argv, r.s.path(r.home), "/cache"))
		}
	}
	seen.Facts = r.facts(ctx, argv)
	if r.v.Varies {
		for i := range seen.Files {
			seen.Files[i].Bytes = Bytes{}
		}
	}
	return seen, nil
}

func (r *vectorRun) prepare() error {
	if err := empty(r.s.path(r.home)); err != nil {
		return err
	}
	for _, output := range r.v.Outputs {
		path := r.here(output)
		if filepath.Ext(path) == "" {
			path = filepath.Join(path, ".")
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
	}
	for from, to := range r.v.Copies {
		b, err := os.ReadFile(r.here(from))
		if err != nil {
			return err
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(r.here(to)), 0o755), os.WriteFile(r.here(to), b, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// attend does with the process what its call site does until it has ended.
func (r *vectorRun) attend(ctx context.Context, p *Process) (stdout, stderr []byte, err error) {
	if r.v.Stdin == "?" {
		_, _ = p.Stdin.WriteString("?")
	}
	if r.v.Stdin != "" {
		p.Stdin.Close()
	}
	if r.v.Seconds > 0 {
		timer := time.AfterFunc(time.Duration(r.v.Seconds)*time.Second, p.KillTree)
		defer timer.Stop()
	}
	var reading sync.WaitGroup
	if p.Stdout != nil {
		reading.Go(func() { stdout, _ = readToEnd(p.Stdout) })
	}
	if p.Stderr != nil {
		reading.Go(func() { stderr, _ = readToEnd(p.Stderr) })
	}
	if r.v.Quit != "" {
		for size(r.here(r.v.Quit)) < 64<<10 && !p.HasExited() && ctx.Err() == nil {
			time.Sleep(pollEvery) // the poll is the server's
		}
		_, _ = p.Stdin.WriteString("q\n")
		if !p.WaitForExit(recorderLimit) {
			p.Kill()
		}
	}
	err = p.Wait(ctx)
	ended := time.Now()
	reading.Wait()
	if held := time.Since(ended); held > heldBound {
		r.r.problem("%s: its pipes were held for %s after its end", r.v.Name, held.Round(time.Second))
	}
	return stdout, stderr, err
}

func (r *vectorRun) dirs() (dirs []string) {
	for _, output := range r.v.Outputs {
		path := r.here(output)
		if filepath.Ext(path) != "" {
			path = filepath.Dir(path)
		}
		dirs = append(dirs, path)
	}
	return dirs
}

// files are what the outputs are at this moment, without the copies.
func (r *vectorRun) files() (files []File) {
	for _, dir := range r.dirs() {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			b, err := os.ReadFile(path)
			copied := slices.ContainsFunc(keys(r.v.Copies), func(from string) bool { return r.here(r.v.Copies[from]) == path })
			if err == nil && !copied {
				files = append(files, File{e.Name(), sum(b)})
			}
		}
	}
	return files
}

func keys[V any](m map[string]V) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// lateLook is when the files are looked at again: the end of the process was the
// promise that nobody writes them any more.
const lateLook = 300 * time.Millisecond

func (r *vectorRun) later(at []File) (problems []string) {
	time.Sleep(lateLook)
	if now := r.files(); !slices.Equal(at, now) {
		problems = append(problems, fmt.Sprintf("the files changed after the end of the process: from %v to %v", at, now))
	}
	return problems
}

// waiting is the one line that ffpod may add for whoever waits.
const waiting = "ffpod: waiting for a worker"

func (r *vectorRun) said(text string) []string {
	text = strings.ReplaceAll(text, r.s.path(r.home), "/cache")
	all := classes(text)
	return slices.DeleteFunc(all, func(line string) bool { return strings.Contains(line, waiting) })
}

var (
	lufs    = regexp.MustCompile(`(?m)^\s+I:\s+(.*?)\s+LUFS`)
	silence = regexp.MustCompile(`silence_(start|end): (-?[0-9.]+)`)
)

// parse is what a server reads out of stderr.
func parse(what, text string) []string {
	switch what {
	case "lufs":
		return lufs.FindStringSubmatch(text)
	case "silence":
		return silence.FindAllString(text, -1)
	}
	return []string{
		fmt.Sprint("pause key: ", strings.Contains(text, "p      pause transcoding")),
		fmt.Sprint("drivers: ", slices.ContainsFunc(drivers[:], func(d string) bool { return strings.Contains(text, d) })),
	}
}

// facts is what the real ffprobe finds in the result.
func (r *vectorRun) facts(ctx context.Context, argv []string) string {
	if len(r.v.Outputs) == 0 {
		return ""
	}
	result := strings.ReplaceAll(argv[len(argv)-1], "%08d", "00000001")
	if size(result) <= 0 {
		return ""
	}
	entries := []string{"-v", "quiet", "-count_packets", "-show_entries", "format=format_name,duration:stream=codec_name,width,height,channels,nb_read_packets", "-of", "csv", result}
	if r.v.Varies {
		entries = []string{"-v", "quiet", "-show_entries", "stream=codec_name,width,height,channels", "-of", "csv", result}
	}
	text, _, err := r.s.bareProbe(ctx, entries...)
	if err != nil {
		return err.Error()
	}
	return text
}

// bareProbe runs the real ffprobe to its end.
func (s *Server) bareProbe(ctx context.Context, args ...string) (text string, code int, err error) {
	bare := &Server{ffprobe: lastComponent.ReplaceAllString(s.bare, "ffprobe$1"), env: os.Environ()}
	p, err := bare.Start(ctx, Command{Program: "ffprobe", Args: args, Stdout: true})
	if err != nil {
		return "", 0, err
	}
	defer p.Close()
	b, err := readToEnd(p.Stdout)
	return string(b), p.ExitCode(), err
}

// watcher sees files appear.
type watcher struct {
	dirs []string
	stop chan struct{}
	done chan struct{}
	once sync.Once

	order []string
	at    map[string]int64 // size of a segment when the next one appeared
}

var numbered = regexp.MustCompile(`^(.*?)([0-9]+)(\.ts|\.mp4|\.jpg)$`)

func watchFiles(dirs []string) *watcher {
	w := &watcher{dirs: dirs, stop: make(chan struct{}), done: make(chan struct{}), at: map[string]int64{}}
	go func() {
		defer close(w.done)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			w.look()
			select {
			case <-tick.C:
			case <-w.stop:
				tick.Stop()
				return
			}
		}
	}()
	return w
}

func (w *watcher) look() {
	for _, dir := range w.dirs {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if slices.Contains(w.order, path) {
				continue
			}
			w.order = append(w.order, path)
			if before := previous(path); before != "" && size(before) >= 0 {
				w.at[before] = size(before)
			}
		}
	}
}

// previous is the name of the segment or picture before this one.
func previous(path string) string {
	dir, name := filepath.Split(path)
	m := numbered.FindStringSubmatch(name)
	if m == nil || strings.HasSuffix(m[1], "-") {
		return ""
	}
	n, err := strconv.Atoi(m[2])
	if err != nil || n == 0 {
		return ""
	}
	return filepath.Join(dir, fmt.Sprintf("%s%0*d%s", m[1], padding(m[2]), n-1, m[3]))
}

func padding(digits string) int {
	if strings.HasPrefix(digits, "0") {
		return len(digits)
	}
	return 0
}

// end says what was out of order: a segment must have its final size when the
// next one is there.
func (w *watcher) end() (problems []string) {
	w.once.Do(func() { close(w.stop) })
	<-w.done
	for _, path := range keys(w.at) {
		if now := size(path); now != w.at[path] {
			problems = append(problems, fmt.Sprintf("%s had %d bytes when the next one appeared, and %d in the end", filepath.Base(path), w.at[path], now))
		}
	}
	return problems
}
