package podexec

import (
	"strconv"
	"testing"

	"github.com/ffpod/ffpod/podexec/supervisor"
)

// BenchmarkStdout is one session's stdout over one hop, without Kubernetes.
func BenchmarkStdout(b *testing.B) {
	c := worker(b, supervisor.Config{})
	const size = 64 << 20
	b.SetBytes(size)
	for b.Loop() {
		cmd, _, _ := command(c, "zeros", strconv.Itoa(size))
		cmd.Stdout = &counter{}
		if err := cmd.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStart is the shortest session.
func BenchmarkStart(b *testing.B) {
	c := worker(b, supervisor.Config{FFmpeg: "/bin/true"})
	for b.Loop() {
		cmd, _, _ := command(c)
		if err := cmd.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
