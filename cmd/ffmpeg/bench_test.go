package main

import (
	"os/exec"
	"testing"

	"github.com/ffpod/ffpod/podexec/wire"
)

// The three benchmarks side by side give the shim's own cost: a program that
// does nothing started directly, through the shim, and as a session of a
// scheduler that ends it at once.

func BenchmarkDirect(b *testing.B) {
	for b.Loop() {
		if err := exec.Command("/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLocal(b *testing.B) {
	for b.Loop() {
		cmd := call{args: []string{"-version"}, env: []string{"FFPOD_FFMPEG=/bin/true"}}.command()
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRemote(b *testing.B) {
	s := serve(b, serverName, func(p *peer) error {
		p.begin()
		p.exit(&wire.Exit{})
		return nil
	})
	for b.Loop() {
		cmd := call{args: []string{"-version"}, env: append(s.settings, "FFPOD_MODE=remote")}.command()
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
		<-s.ended
	}
}
