package jellyfin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// GetMediaInfo is a library scan's ffprobe: stdout to its end, the exit code
// unread, the process killed only when its JSON is bad.
func (s *Server) GetMediaInfo(ctx context.Context, input string, args ...string) (streams int, text []byte, err error) {
	argv := append([]string{"-analyzeduration", "200M", "-probesize", "1G", "-i", input, "-threads", "0", "-v", "warning",
		"-print_format", "json", "-show_streams", "-show_chapters", "-show_format"}, args...)
	p, err := s.Start(ctx, Command{Program: "ffprobe", Args: argv, Stdout: true})
	if err != nil {
		return 0, nil, err
	}
	defer p.Close()
	if text, err = readToEnd(p.Stdout); err != nil {
		return 0, text, err
	}
	var info struct {
		Streams []json.RawMessage
		Format  json.RawMessage
	}
	if err := json.Unmarshal(text, &info); err != nil {
		if !p.WaitForExit(badJSONLimit) {
			p.Kill()
		}
		return 0, text, fmt.Errorf("read what ffprobe says of %s: %w", input, err)
	}
	if info.Streams == nil && info.Format == nil {
		return 0, text, errNoStreams
	}
	return len(info.Streams), text, p.Wait(ctx)
}

var errNoStreams = errors.New("streams and format are both null")

// ExtractImage makes one picture. It looks for it at once after the exit.
func (s *Server) ExtractImage(ctx context.Context, args []string) error {
	p, err := s.Start(ctx, Command{Program: "ffmpeg", Args: args, BelowNormal: true})
	if err != nil {
		return err
	}
	defer p.Close()
	if !p.WaitForExit(imageLimit) {
		p.KillTree()
		return errTooSlow
	}
	picture := args[len(args)-1]
	if code := p.ExitCode(); code > 0 || size(picture) <= 0 {
		return fmt.Errorf("no picture: exit code %d, %d bytes", code, size(picture))
	}
	return nil
}

var errTooSlow = errors.New("not done within Jellyfin's limit")

// ExtractTrickplay makes pictures in a directory as long as they keep coming.
func (s *Server) ExtractTrickplay(ctx context.Context, args []string) (pictures int, err error) {
	dir := filepath.Dir(args[len(args)-1])
	if err := empty(dir); err != nil {
		return 0, err
	}
	count := func() int {
		all, _ := filepath.Glob(filepath.Join(dir, "*.jpg"))
		return len(all)
	}
	p, err := s.Start(ctx, Command{Program: "ffmpeg", Args: args, BelowNormal: true})
	if err != nil {
		return 0, err
	}
	defer p.Close()
	for !p.WaitForExit(trickplayWindow) {
		now := count()
		if now <= pictures {
			if !p.WaitForExit(trickplayGrace) {
				p.Kill()
			}
			return now, errTooSlow
		}
		pictures = now
	}
	if code := p.ExitCode(); code != 0 {
		return count(), fmt.Errorf("exit code %d", code)
	}
	return count(), nil
}

// ExtractSubtitles succeeds when every output exists and has bytes, whatever the
// exit code is.
func (s *Server) ExtractSubtitles(ctx context.Context, args, outputs []string) (code int, err error) {
	c := Command{Program: "ffmpeg", Args: args}
	if s.Flavour == V12_0 {
		c.Args = append([]string{"-nostdin", "-y"}, args...)
		c.Stdin, c.Stderr = true, true
	}
	p, err := s.Start(ctx, c)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	if c.Stdin {
		p.Stdin.Close()
		if _, err := readToEnd(p.Stderr); err != nil {
			return 0, err
		}
	}
	if !p.WaitForExit(subtitleLimit) {
		p.KillTree()
		return -1, errTooSlow
	}
	for _, o := range outputs {
		if size(o) <= 0 {
			return p.ExitCode(), fmt.Errorf("subtitle %s has %d bytes", filepath.Base(o), size(o))
		}
	}
	return p.ExitCode(), nil
}

// ExtractAttachments lets ffmpeg name its files in the directory.
func (s *Server) ExtractAttachments(ctx context.Context, dir, input string, onlySubtitles bool) error {
	if err := empty(dir); err != nil {
		return err
	}
	args := []string{"-dump_attachment:t", "", "-y", "-i", "file:" + input}
	if !onlySubtitles || s.Flavour == V10_11 {
		args = append(args, "-t", "0", "-f", "null", "null")
	}
	p, err := s.Start(ctx, Command{Program: "ffmpeg", Args: args, Dir: dir})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Wait(ctx); err != nil {
		return err
	}
	accepted := onlySubtitles && s.Flavour == V12_0 && p.ExitCode() == 1
	if p.ExitCode() != 0 && !accepted {
		log, _ := p.Log()
		return fmt.Errorf("exit code %d: %s", p.ExitCode(), log)
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) == 0 {
		err = errors.New("no attachment was written")
	}
	return err
}

// CalculateLUFS reads the loudness; cancelled is a task that stops after so many
// bytes: it closes stderr and kills nothing.
func (s *Server) CalculateLUFS(ctx context.Context, input string, cancelled int64) (value string, p *Process, err error) {
	p, err = s.Start(ctx, Command{Program: "ffmpeg", Args: []string{"-hide_banner", "-i", input, "-af", "ebur128=framelog=verbose", "-f", "null", "-"},
		Stderr: true, BelowNormal: true})
	if err != nil {
		return "", nil, err
	}
	if cancelled > 0 {
		_, err = io.CopyN(io.Discard, p.Stderr, cancelled)
		p.Stderr.Close()
		return "", p, err
	}
	text, err := readToEnd(p.Stderr)
	if m := lufs.FindSubmatch(text); err == nil && m != nil {
		value = string(m[1])
	}
	return value, p, err
}

// GetKeyframes reads a film's key frames while ffprobe writes them; after most
// lines, if that is not 0, it closes the pipe.
func (s *Server) GetKeyframes(ctx context.Context, input string, most int) (frames []float64, p *Process, err error) {
	p, err = s.Start(ctx, Command{Program: "ffprobe", Args: []string{"-fflags", "+genpts", "-v", "error", "-skip_frame", "nokey",
		"-show_entries", "format=duration", "-show_entries", "stream=duration", "-show_entries", "packet=pts_time,flags",
		"-select_streams", "v", "-of", "csv", input}, Stdout: true, BelowNormal: true})
	if err != nil {
		return nil, nil, err
	}
	stdout := newLines(p.Stdout)
	for n := 1; ; n++ {
		line, ok := stdout.next()
		if !ok || n == most {
			p.Stdout.Close()
			return frames, p, nil
		}
		if line == "" {
			continue
		}
		kind, rest, ok := strings.Cut(line, ",")
		if !ok {
			p.Kill()
			return frames, p, fmt.Errorf("a line without a comma: %q", line)
		}
		if at, flags, ok := strings.Cut(rest, ","); kind == "packet" && ok && strings.HasPrefix(flags, "K_") {
			if t, err := strconv.ParseFloat(at, 64); err == nil {
				frames = append(frames, t)
			}
		}
	}
}

// Record writes a broadcast until the end of the programme.
func (s *Server) Record(ctx context.Context, target string, until func() bool) (code int, err error) {
	if err := errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), os.WriteFile(target, nil, 0o644)); err != nil {
		return 0, err
	}
	p, err := s.Start(ctx, Command{Program: "ffmpeg", Stdin: true, Stderr: true, Args: []string{
		"-async", "1", "-fflags", "+igndts", "-re", "-analyzeduration", "5000000", "-i", "http://" + s.tuner.address + "/auto/v5",
		"-codec:v:0", "copy", "-fflags", "+genpts", "-map_metadata", "-1", "-threads", "0", "-codec:a:0", "copy", "-sn", "-y", target,
	}})
	if err != nil {
		return 0, err
	}
	defer p.Close()
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		for l := newLines(p.Stderr); ; {
			if _, ok := l.next(); !ok {
				return
			}
		}
	}()
	for !until() && !p.HasExited() && ctx.Err() == nil {
		time.Sleep(pollEvery) // Jellyfin's own timer
	}
	if _, err := p.Stdin.WriteString("q\n"); err != nil && !p.HasExited() {
		return 0, fmt.Errorf("write q: %w", err)
	}
	if !p.WaitForExit(recorderLimit) {
		p.Kill()
		return 137, errKilled
	}
	<-logged
	return p.ExitCode(), nil
}

// Tail reads a growing file as ProgressiveFileStream does: the first end of the
// file after the exit is the end of the stream.
func (t *Transcode) Tail(ctx context.Context) ([]byte, error) {
	f, err := os.Open(t.playlist)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []byte
	buf := make([]byte, 80<<10)
	for {
		exited := t.HasExited()
		n, err := f.Read(buf)
		all = append(all, buf[:n]...)
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return all, err
		case n > 0:
		case exited:
			return all, nil
		default:
			select {
			case <-time.After(tailEvery):
			case <-ctx.Done():
				return all, ctx.Err()
			}
		}
	}
}
