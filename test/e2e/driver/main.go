// Command driver is the suite's hand in the pods.
//
//	driver parent          runs the Plan on stdin, answers with Results
//	driver procs           the processes of this pod, as JSON
//	driver ... child=JSON  stands for ffmpeg and does what the Child says
//
// See package e2e for the words.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/ffpod/ffpod/test/e2e"
)

func main() {
	if c, ok := e2e.ParseChild(os.Args[1:]); ok {
		os.Exit(child(c))
	}
	verb := ""
	if len(os.Args) == 2 {
		verb = os.Args[1]
	}
	switch verb {
	case "parent":
		os.Exit(parent())
	case "procs":
		_ = json.NewEncoder(os.Stdout).Encode(processes())
	case "-version": // a worker asks its ffmpeg
		fmt.Println("ffmpeg version driver")
	default:
		fmt.Fprintln(os.Stderr, "driver: usage: driver parent | procs")
		os.Exit(2)
	}
}
