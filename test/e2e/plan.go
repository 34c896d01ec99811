// Package e2e is what a program and its ffmpeg must see, proved on a real
// cluster: the one of $KUBECONFIG. One list of specs runs three ways
// (ways_test.go): the shim decided local, a warm worker, a Job.
//
//	suite (ginkgo, anywhere)
//	  │ one exec per plan: Plan as JSON in, Result as JSON out
//	  ▼
//	client pod: driver parent ── spawns ──▶ /opt/ffpod/ffmpeg, the shim
//	                                          │ session
//	worker pod: driver (as FFPOD_FFMPEG) ◀────┘
//
// The driver (test/e2e/driver) is one static program on the volume that client
// and workers share. As the parent it gives the shim precise descriptors, argv,
// environment, directory and umask, and tells what a parent sees: the wait
// status, the bytes, their order. As the child it does what real ffmpeg cannot
// do on demand. Wherever real ffmpeg can show the thing, it does.
//
// This file is the language that the suite and the driver speak.
package e2e

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"syscall"
	"time"
)

// Where things are in the pods.
const (
	Home   = "/cache/e2e" // on the volume that client and workers share
	Driver = Home + "/driver"
	Shim   = "/opt/ffpod/ffmpeg"
	// HeadBytes is how much of a stream a Result holds, and how far a step sees text.
	HeadBytes = 64 << 10
)

// Plan is what a parent does.
type Plan struct {
	Parallel int // most runs at a time; 0: all at once
	Runs     []Run
}

// Run is one process and what its parent does to it.
type Run struct {
	Path string // defaults to Shim
	// Args are argv[1:]; bytes, since the kernel does not know UTF-8.
	Args [][]byte
	// Env is beside the parent's own environment, which is the pod's.
	Env            []string
	Dir            string // defaults to Home
	Umask          *int
	Stdin          *Input // nil: /dev/null
	Stdout, Stderr Output
	Steps          []Step // one after the other, while the bytes flow
	// Within bounds the run; then its process is killed. Defaults to 2 min.
	Within time.Duration
}

// Input is written to a pipe, Text before Random, which is then closed.
type Input struct {
	Text   []byte
	Random Flood
	Open   bool // closed only by a step, or after the process
}

// Output is how a parent reads a pipe: at once and to its end, unless said.
type Output struct {
	CloseAfter int64 // close the reading end after so many bytes; -1: before the start
	HoldAfter  int64 // stop reading after so many bytes until a step releases it; -1: from the start
	Rate       int64 // bytes per second, until a step releases it
}

// Step is one thing a parent does; one field is set.
type Step struct {
	Seen       *Seen
	Signal     syscall.Signal
	Write      []byte // to stdin
	CloseStdin bool
	Pause      time.Duration // the passing of time is what is tested
	Gather     int           // wait until so many runs of the plan have come here
	Release    int           // descriptor 1 or 2: read on
	File       string        // wait until it exists: how a suite speaks to a plan that runs
}

// Seen waits until a stream has shown a text within HeadBytes, or so many bytes.
type Seen struct {
	FD    int
	Text  string
	Bytes int64
}

// Result is what the parent saw.
type Result struct {
	// Error says that the parent could not do as told. Empty: it could.
	Error          string
	Code           int            // of exit(2); -1 when a signal ended it
	Signal         syscall.Signal // 0: none
	Stdout, Stderr Stream
	Log            string          // what the shim wrote to FFPOD_LOG
	Started, Ended time.Duration   // since the plan's start
	Steps          []time.Duration // when each was done
}

// Stream is what came through one pipe.
type Stream struct {
	Bytes int64
	SHA   string
	Head  []byte
	// Held says that the pipe was still open some time after the process was
	// gone: somebody else kept it.
	Held bool
}

// Child is what the child does, in this order.
type Child struct {
	Mark           string // found in its command line
	Catch          []int  // signals that end it with CaughtCode + number
	Ignore         []int
	Default        []int // signals whose default action is left to the kernel: Go's runtime has its own
	Ready          bool  // "ready\n" on stderr
	Answer         bool  // each line of stdin to stderr, at once
	Tell           bool  // itself as JSON (Told) on stdout
	Stdout, Stderr Flood // at the same time
	Echo           bool  // stdin to stdout
	Stay           bool  // until a signal, or the end of stdin if it answers
	Code           int
	Die            int // end by this signal
}

// CaughtCode is added to the number of a caught signal.
const CaughtCode = 100

// Told is what a child knows of itself.
type Told struct {
	Args          [][]byte // argv[1:], if short
	Count         int
	SHA           string // SumArgs of argv[1:]
	Env           []string
	Dir           string
	Umask         int
	UID, GID, PID int
}

// Process is one line of /proc.
type Process struct {
	PID, Parent int
	State       string
	Args        []string
}

// Flood is so many bytes of a random stream.
type Flood struct {
	Seed  uint64
	Bytes int64
}

// Reader makes the bytes.
func (f Flood) Reader() io.Reader {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], f.Seed)
	return io.LimitReader(rand.NewChaCha8(seed), f.Bytes)
}

// SHA is the sum that a Stream of exactly these bytes has.
func (f Flood) SHA() string {
	sum := sha256.New()
	_, _ = io.Copy(sum, f.Reader())
	return hex.EncodeToString(sum.Sum(nil))
}

// SumArgs tells argument vectors apart, also by where their arguments end.
func SumArgs(args [][]byte) string {
	sum := sha256.New()
	for _, a := range args {
		_ = binary.Write(sum, binary.LittleEndian, uint64(len(a)))
		sum.Write(a)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Args makes arguments of text.
func Args(args ...string) [][]byte {
	all := make([][]byte, len(args))
	for i, a := range args {
		all[i] = []byte(a)
	}
	return all
}

// childOption introduces a Child in an argv that ffmpeg would understand too.
const childOption = "child="

// Argv is the command line of a child: an ffmpeg command without a file, which
// reads stdin as an input if stdin is said. extra comes first.
func (c Child) Argv(stdin bool, extra ...[]byte) [][]byte {
	order, _ := json.Marshal(c) // it holds nothing that JSON cannot
	input := Args("-f", "lavfi", "-i", "nullsrc")
	if stdin {
		input = Args("-f", "data", "-i", "-")
	}
	argv := append(append([][]byte{}, extra...), input...)
	return append(argv, Args("-metadata", childOption+string(order), "-f", "null", "-")...)
}

// ParseChild finds the order in a command line.
func ParseChild(args []string) (Child, bool) {
	for _, a := range args {
		if len(a) > len(childOption) && a[:len(childOption)] == childOption {
			var c Child
			return c, json.Unmarshal([]byte(a[len(childOption):]), &c) == nil
		}
	}
	return Child{}, false
}
