package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
	"github.com/ffpod/ffpod/scheduler/api"
)

// smoke is the test of a whole way: a caller's container, its shim, token, CA and
// DNS, the scheduler, a worker, an encoder.
type smoke struct {
	in, class, encoder string
	timeout            time.Duration
}

func newTest() *cobra.Command {
	var s smoke
	c := &cobra.Command{
		Use:   "test [-n NAMESPACE] [--in deploy/NAME] [--class CLASS] [--encoder NAME]",
		Short: "Encode a test picture through the shim of a caller's pod; fail unless a worker did the work, and say which",
		Long: "Test runs the shim in a caller's container (Jellyfin's, unless told), with its own settings but for the\n" +
			"fallback: what cannot run on a worker fails. It needs pods/exec there and pods/portforward to the scheduler.",
		Args: usage(cobra.NoArgs),
	}
	open := clusterFlags(c)
	c.Flags().StringVar(&s.in, "in", "", "the pod, or the Deployment of the pod, whose shim to use")
	c.Flags().StringVar(&s.class, "class", "", "the only class that may take it")
	c.Flags().StringVar(&s.encoder, "encoder", "libx264", "libx264, or a hardware encoder that a class has: h264_nvenc, h264_qsv, h264_vaapi")
	c.Flags().DurationVar(&s.timeout, "timeout", 3*time.Minute, "how long it may take, a Job's start included")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if _, err := smokeArgs(s.encoder); err != nil {
			return &usageError{err: err}
		}
		on, err := open()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(c.Context(), s.timeout, fmt.Errorf("not within %s", s.timeout))
		defer cancel()
		return s.run(ctx, on, c.OutOrStdout())
	}
	return c
}

// smokeArgs is the command of the test for an encoder.
func smokeArgs(encoder string) ([]string, error) {
	source := []string{"-f", "lavfi", "-i", "testsrc=duration=2:size=640x360:rate=30"}
	var before, filter []string
	switch {
	case encoder == "libx264", strings.HasSuffix(encoder, "_nvenc"):
	case strings.HasSuffix(encoder, "_qsv"):
		before = []string{"-init_hw_device", "vaapi=va:,driver=iHD", "-init_hw_device", "qsv=qs@va", "-filter_hw_device", "qs"}
		filter = []string{"-vf", "format=nv12,hwupload=extra_hw_frames=16"}
	case strings.HasSuffix(encoder, "_vaapi"):
		before = []string{"-init_hw_device", "vaapi=va:", "-filter_hw_device", "va"}
		filter = []string{"-vf", "format=nv12,hwupload"}
	default:
		return nil, fmt.Errorf("test with encoder %q: use libx264, or one that ends in _nvenc, _qsv or _vaapi", encoder)
	}
	args := append([]string{"-hide_banner", "-nostdin", "-loglevel", "error"}, before...)
	args = append(append(args, source...), filter...)
	return append(args, "-c:v", encoder, "-f", "null", "-"), nil
}

func (s smoke) run(ctx context.Context, on *cluster.Cluster, out io.Writer) error {
	args, err := smokeArgs(s.encoder)
	if err != nil {
		return err
	}
	return s.try(ctx, on, "encoded 2 s with "+s.encoder, args, out)
}

// try runs ffmpeg with args through the shim of a caller's pod; what says for people
// what it does.
func (s smoke) try(ctx context.Context, on *cluster.Cluster, what string, args []string, out io.Writer) error {
	caller, err := on.Caller(ctx, s.in)
	if err != nil {
		return fmt.Errorf("test: %w", err)
	}
	// The scheduler is asked before, so that a worker's work is not lost for lack
	// of a right to be told of it.
	if _, err := on.Status(ctx); err != nil {
		return fmt.Errorf("test: %w", err)
	}
	env := []string{"env", "FFPOD_FALLBACK=fail", "FFPOD_LOG=/dev/stderr"}
	if s.class != "" {
		env = append(env, "FFPOD_CLASS="+s.class)
	}
	var stderr bytes.Buffer
	begun := time.Now()
	code, err := on.Exec(ctx, cluster.Command{Pod: caller.Pod.Name, Container: caller.Container,
		Args: append(append(env, caller.Shim), args...), Stdout: io.Discard, Stderr: &stderr})
	if err != nil {
		return fmt.Errorf("test: %w", err)
	}
	took := time.Since(begun)
	session, err := readLog(stderr.String(), code)
	if err != nil {
		return fmt.Errorf("test in pod %s: %w", caller.Pod.Name, err)
	}
	x, err := awaitEnd(ctx, session, on.Status)
	if err != nil {
		return fmt.Errorf("test in pod %s: %w", caller.Pod.Name, err)
	}
	_, err = fmt.Fprintf(out, "ok: pod %s, worker %s of class %s on node %s (%s) %s, in %s\n",
		caller.Pod.Name, x.Pod, x.Class, x.Node, x.Placement, what, took.Round(10*time.Millisecond))
	return err
}

// decided is a line of FFPOD_LOG.
var decided = regexp.MustCompile(`^\S+ pid=\d+ program=\S+ kind=\S+ where=(\S+) reason="(.*)"$`)

// readLog finds out of what the shim wrote whether, and as which session, a worker
// ran the command.
func readLog(stderr string, code int) (session string, err error) {
	where, why := "", ""
	var words []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		m := decided.FindStringSubmatch(line)
		if m == nil {
			if line != "" {
				words = append(words, line)
			}
			continue
		}
		if id, ok := strings.CutPrefix(m[2], "session "); ok && m[1] == "remote" {
			session = id
		}
		if m[1] == "local" || m[1] == "nowhere" || m[1] == "lost" || where == "" {
			where, why = m[1], m[2]
		}
	}
	said := strings.Join(words, "; ")
	switch {
	case where == "":
		return "", fmt.Errorf("the shim did not decide anything (exit %d): %s; is it the shim, and of this release?", code, said)
	case where == "local":
		return "", fmt.Errorf("no worker did the work, it ran in the pod itself: %s; look at FFPOD_MODE and FFPOD_SHARED there", why)
	case code != 0 && said != "":
		return "", fmt.Errorf("exit %d: %s", code, said)
	case code != 0:
		return "", fmt.Errorf("exit %d: %s", code, why)
	case session == "":
		return "", fmt.Errorf("no worker did the work: %s: %s", where, why)
	}
	return session, nil
}

// awaitEnd asks until the scheduler knows the session's end: the shim has it a
// moment before.
func awaitEnd(ctx context.Context, session string, status func(context.Context) (api.Status, error)) (api.Session, error) {
	var last api.Session
	for until := time.Now().Add(10 * time.Second); ; {
		s, err := status(ctx)
		if err != nil {
			return last, err
		}
		for _, x := range s.Sessions {
			if x.ID != session {
				continue
			}
			last = x
			if x.State == "ended" && x.Pod != "" && x.Exit != nil && x.Exit.Code == 0 && x.Exit.Signal == 0 {
				return x, nil
			}
			if x.Failed {
				return x, fmt.Errorf("the scheduler says of session %s: %s", session, ended(x))
			}
		}
		if time.Now().After(until) {
			if last.ID == "" {
				return last, fmt.Errorf("the scheduler knows no session %s: another scheduler than this namespace's served it", session)
			}
			return last, fmt.Errorf("session %s has not ended by the scheduler's word: it is %s", session, last.State)
		}
		select {
		case <-ctx.Done():
			return last, errors.Join(context.Cause(ctx))
		case <-time.After(200 * time.Millisecond):
		}
	}
}
