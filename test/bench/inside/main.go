// Command inside is the part of the benchmark that runs in the client pod. It
// answers the requests of test/bench on its stdin; see package agent.
package main

import (
	"fmt"
	"os"

	"github.com/ffpod/ffpod/test/bench/agent"
)

func main() {
	if err := agent.Serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
	}
}
