package doctor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// local is a patient whose pods are this machine: the scripts run as they are.
func local(t *testing.T) *Patient {
	t.Helper()
	return &Patient{
		Exec: func(ctx context.Context, _, _ string, args ...string) (Output, error) {
			var stdout, stderr bytes.Buffer
			cmd := exec.CommandContext(ctx, args[0], args[1:]...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				err = nil
			}
			return Output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}, err
		},
		Watch: func(ctx context.Context, _, _ string, line func(string), args ...string) error {
			cmd := exec.CommandContext(ctx, args[0], args[1:]...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				return err
			}
			if err := cmd.Start(); err != nil {
				return err
			}
			for lines := bufio.NewScanner(out); lines.Scan(); {
				line(lines.Text())
			}
			return cmd.Wait()
		},
	}
}

func TestSee(t *testing.T) {
	p, dir := local(t), t.TempDir()
	s, err := see(t.Context(), p, place{pod: "a"}, place{pod: "b"}, dir)
	if err != nil || s.never || s.refused != "" || s.writer == "" || s.writer != s.owner || s.delay > 2*settle {
		t.Errorf("%+v, %v", s, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	s, err = see(t.Context(), p, place{pod: "a"}, place{pod: "b"}, dir+"/none")
	if f := judge("x", s, err); f.Level != Fail || !strings.Contains(f.What, "cannot be written") || f.Remedy == "" {
		t.Errorf("%+v", f)
	}
}

func TestCompare(t *testing.T) {
	p, dir := local(t), t.TempDir()
	at := place{pod: "a"}
	if f := compare(t.Context(), p, at, at, dir, "x"); f.Level != Warn || !strings.Contains(f.What, "empty") {
		t.Errorf("%+v", f)
	}
	if err := os.WriteFile(dir+"/a film.mkv", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f := compare(t.Context(), p, at, at, dir, "x"); f.Level != OK {
		t.Errorf("%+v", f)
	}
	if f := compare(t.Context(), p, at, at, dir+"/none", "x"); f.Level != Fail {
		t.Errorf("%+v", f)
	}
}
