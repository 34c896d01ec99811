package jellyfin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// FakeDirectory is the name of a directory in which the simulator is an ffmpeg.
const FakeDirectory = "fake"

// What the name of an input asks of the fake ffmpeg.
const (
	endless  = "endless"  // plays until q
	stubborn = "stubborn" // plays and heeds neither q nor SIGTERM
	stuck    = "stuck"    // makes nothing and does not end
)

const (
	fakeSegments = 6
	fakeStep     = 50 * time.Millisecond // of a segment
	fakeSpan     = 30                    // seconds of film in it
)

// Fake is an ffmpeg for one command line. It tells on stderr what it was given
// and which keys came, and writes HLS segments. The locks beside the directory of
// its playlist show whether two of them ever write the same names.
func Fake(args []string) int {
	if slices.Contains(args, "-version") {
		fmt.Println("ffmpeg version 7.1.1-Jellyfin Copyright (c) the simulator")
		return 0
	}
	f := &fake{args: args, keys: make(chan byte), text: strings.Join(args, "\n")}
	said, _ := json.Marshal(args)
	fmt.Fprintf(os.Stderr, "%s%s\n", toldArgv, said)
	if code, ok := f.answer(); ok {
		return code
	}
	if strings.Contains(f.text, stubborn) {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	}
	if strings.Contains(f.text, stuck) {
		for { // not select {}: the runtime would call it a deadlock
			time.Sleep(time.Hour)
		}
	}
	go f.read()
	return f.play()
}

type fake struct {
	args []string
	text string
	keys chan byte
}

// answer is for the questions of a start-up that real hardware would answer.
func (f *fake) answer() (code int, ok bool) {
	switch {
	case slices.Contains(f.args, "-hwaccels"):
		fmt.Print("Hardware acceleration methods:\nvaapi\nqsv\n")
		return 0, true
	case slices.Contains(f.args, "-i") && !strings.Contains(f.text, "nullsrc"):
		return 0, false
	case strings.Contains(f.text, "vaapi=va:"):
		fmt.Fprintln(os.Stderr, "[AVHWDeviceContext @ 0x1] Initialised VAAPI connection: version 1.22\n"+
			"[AVHWDeviceContext @ 0x1] VAAPI driver: Intel iHD driver for Intel(R) Gen Graphics.")
		return 1, true
	case strings.Contains(f.text, "vulkan=vk@dr"):
		for _, e := range slices.Concat(vulkanModifier, vulkanInterop) {
			fmt.Fprintln(os.Stderr, "[AVHWDeviceContext @ 0x1] Using device extension", e)
		}
		return 1, true
	case strings.Contains(f.text, "nullsrc"):
		fmt.Fprintln(os.Stderr, "key    function\n?      show this help\np      pause transcoding\nq      quit\nu      unpause transcoding")
		return 0, true
	}
	return 0, true // -decoders and the like: it has none
}

// read passes on each byte of stdin.
func (f *fake) read() {
	for stdin := bufio.NewReaderSize(os.Stdin, 16); ; {
		key, err := stdin.ReadByte()
		if err != nil {
			return // the end of stdin is no key
		}
		f.keys <- key
	}
}

func (f *fake) play() int {
	playlist := f.args[len(f.args)-1]
	pattern, start := f.option("-hls_segment_filename"), f.option("-start_number")
	first, _ := strconv.Atoi(start)
	lock := f.lock(playlist)
	defer lock.Close()
	paused := false
	for n := first; ; {
		select {
		case key := <-f.keys:
			fmt.Fprintf(os.Stderr, "fake: key %q\n", key)
			switch {
			case key == 'p' || key == 'c':
				paused = true
			case key == 'u' || key == '\n':
				paused = false
			case key == 'q' && !strings.Contains(f.text, stubborn):
				f.drain()
				return 0
			}
		case <-time.After(fakeStep):
			if paused {
				continue
			}
			if n++; n-first > fakeSegments && !strings.Contains(f.text, endless) && !strings.Contains(f.text, stubborn) {
				return 0
			}
			f.segment(pattern, n-1)
			at := (n - first) * fakeSpan
			fmt.Fprintf(os.Stderr, "frame=%5d fps= 25 q=-1.0 size=N/A time=%02d:%02d:%02d.00 bitrate=N/A speed=9x    \r", n, at/3600, at/60%60, at%60)
		}
	}
}

// drain tells the keys that came with q, as far as they are there.
func (f *fake) drain() {
	for {
		select {
		case key := <-f.keys:
			fmt.Fprintf(os.Stderr, "fake: key %q\n", key)
		case <-time.After(2 * fakeStep):
			return
		}
	}
}

func (f *fake) option(name string) string {
	if i := slices.Index(f.args, name); i >= 0 && i+1 < len(f.args) {
		return f.args[i+1]
	}
	return ""
}

// segment appears complete.
func (f *fake) segment(pattern string, n int) {
	if pattern == "" {
		return
	}
	name := strings.Replace(pattern, "%d", strconv.Itoa(n), 1)
	if err := os.WriteFile(name, []byte(strings.Repeat("segment ", 512)), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "fake:", err)
	}
}

// lock holds the playlist's lock until the process ends, and tells when somebody
// else has it.
func (f *fake) lock(playlist string) *os.File {
	dir, name := stem(playlist)
	file, err := os.OpenFile(filepath.Join(filepath.Dir(filepath.Clean(dir)), "locks", name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		fmt.Fprintln(os.Stderr, overlap)
		_ = os.WriteFile(file.Name()+".overlap", nil, 0o644)
	}
	return file
}

// toldArgv introduces the fake's argv, whole.
const toldArgv = "fake: argv "

const overlap = "fake: another process writes the same names"
