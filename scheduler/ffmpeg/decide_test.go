package ffmpeg

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func lines(s string) []string { return strings.Fields(s) }

// world is a small machine: directories, files with contents, FIFOs, sockets.
type world map[string]string

func (w world) stat(name string) (fs.FileMode, error) {
	switch w[name] {
	case "":
		return 0, fs.ErrNotExist
	case "fifo":
		return fs.ModeNamedPipe, nil
	case "socket":
		return fs.ModeSocket, nil
	}
	return 0o644, nil
}

func (w world) read(name string) ([]byte, error) {
	if w[name] == "fifo" {
		return nil, errors.New("a FIFO must never be read")
	}
	if text, ok := w[name]; ok {
		return []byte(text), nil
	}
	return nil, fs.ErrNotExist
}

func environment(w world) Environment {
	return Environment{
		Host:   Host{Dir: "/app", Stat: w.stat, ReadFile: w.read},
		Shared: []string{"/media", "/cache"},
	}
}

type clauseTest struct {
	program string
	argv    string
	world   world
	egress  bool
	dir     string
	want    Clause
	where   Where
}

// clauseTests has at least one case for every clause, named after it, and for
// each the nearest command that it must not catch.
func clauseTests() map[string]clauseTest {
	return map[string]clauseTest{
		"information":                   {argv: "-hide_banner -loglevel warning -version", want: ClauseInformation, where: Local},
		"information with a topic":      {argv: "-h muxer=chromaprint", want: ClauseInformation, where: Local},
		"information after files":       {argv: "-i /media/a.mkv /cache/b.mkv -hwaccels", want: ClauseInformation, where: Local},
		"information: device list":      {argv: "-init_hw_device list", want: ClauseInformation, where: Local},
		"information: double dash help": {argv: "--help", want: ClauseInformation, where: Local},
		"not information but a value":   {argv: "-i /media/a.mkv -metadata -version /cache/b.mkv", want: ClauseEncode, where: Remote},
		"not information but a name":    {argv: "-i /media/a.mkv -- -version", want: ClauseUnshared, where: Local},
		"hardware-probe":                {argv: "-v verbose -init_hw_device drm=dr:/dev/dri/renderD128 -init_hw_device vulkan=vk@dr", want: ClauseHardwareProbe, where: Remote},
		"no hardware-probe with input":  {argv: "-init_hw_device vaapi=va:/dev/dri/renderD128 -i /media/a.mkv -c:v h264_vaapi /cache/b.mkv", want: ClauseEncode, where: Remote},
		"idle":                          {argv: "-hide_banner", want: ClauseIdle, where: Local},
		"not idle: a graph is a source": {argv: "-filter_complex testsrc=d=1 /cache/b.mkv", want: ClauseEncode, where: Remote},
		"ffprobe":                       {program: "ffprobe", argv: "-show_streams /media/a.mkv", want: ClauseFFprobe, where: Local},
		"source-check":                  {argv: "-f lavfi -i nullsrc=s=1x1:d=100 -f null -", want: ClauseSourceCheck, where: Local},
		"no source-check: an encoder":   {argv: "-f lavfi -i nullsrc -c:v h264_nvenc -f null -", want: ClauseEncode, where: Remote},
		"no source-check: a picture":    {argv: "-f lavfi -i testsrc -f null -", want: ClauseEncode, where: Remote},
		"attachment":                    {argv: "-dump_attachment:t /media/font.ttf -i /media/a.mkv -t 0 -f null null", want: ClauseAttachment, where: Local},
		"subtitle":                      {argv: "-i /media/a.mkv -map 0:2 -an -vn -c:s copy /media/subtitles/2.srt", want: ClauseSubtitle, where: Local},
		"not subtitle: a film there":    {argv: "-i /media/a.mkv -c:v libx264 /media/subtitles/2.mkv", want: ClauseEncode, where: Remote},
		"image":                         {argv: "-i /media/a.mkv -vframes 1 -f image2 /cache/a.jpg", want: ClauseImage, where: Local},
		"image by -frames:v":            {argv: "-i /media/a.mkv -frames:v 1 /cache/a.png", want: ClauseImage, where: Local},
		"descriptor":                    {argv: "-i pipe:3 -f matroska -", want: ClauseDescriptor, where: Local},
		"descriptor by /dev/fd":         {argv: "-i /dev/fd/63 -f matroska -", want: ClauseDescriptor, where: Local},
		"descriptor by -fd":             {argv: "-fd 5 -i fd: -f matroska -", want: ClauseDescriptor, where: Local},
		"descriptor of -progress":       {argv: "-progress pipe:4 -i /media/a.mkv /cache/b.mkv", want: ClauseDescriptor, where: Local},
		"no descriptor: the usual":      {argv: "-i pipe:0 -progress pipe:2 -f matroska pipe:1", want: ClauseEncode, where: Remote},
		"no descriptor: /dev/stdin":     {argv: "-i /dev/stdin -f matroska /dev/stdout", want: ClauseEncode, where: Remote},
		"socket":                        {argv: "-i /media/a.mkv -f mpegts unix:/cache/s", want: ClauseSocket, where: Local},
		"loopback":                      {argv: "-i http://127.0.0.1:8096/x.ts /cache/b.mkv", egress: true, want: ClauseLoopback, where: Local},
		"loopback: listening":           {argv: "-i udp://@:5000 /cache/b.mkv", egress: true, want: ClauseLoopback, where: Local},
		"network":                       {argv: "-i http://tuner.lan/x.ts /cache/b.mkv", want: ClauseNetwork, where: Local},
		"network with egress":           {argv: "-i http://tuner.lan/x.ts /cache/b.mkv", egress: true, want: ClauseEncode, where: Remote},
		"device":                        {argv: "-f x11grab -i :0.0 /cache/b.mkv", want: ClauseDevice, where: Local},
		"device: unknown protocol":      {argv: "-i foo:bar /cache/b.mkv", want: ClauseDevice, where: Local},
		"unshared input":                {argv: "-i /home/a.mkv /cache/b.mkv", want: ClauseUnshared, where: Local},
		"unshared: a longer name":       {argv: "-i /media2/a.mkv /cache/b.mkv", want: ClauseUnshared, where: Local},
		"unshared: dots lead out":       {argv: "-i /media/../etc/passwd /cache/b.mkv", want: ClauseUnshared, where: Local},
		"unshared in a graph":           {argv: "-i /media/a.mkv -vf subtitles=/home/a.srt /cache/b.mkv", want: ClauseUnshared, where: Local},
		"unshared: relative output":     {argv: "-i /media/a.mkv b.mkv", want: ClauseUnshared, where: Local},
		"unshared: relative, climbing":  {argv: "-i ../media/a.mkv /cache/b.mkv", want: ClauseUnshared, where: Local},
		"shared: relative in shared":    {argv: "-i a.mkv b.mkv", dir: "/media/x", want: ClauseEncode, where: Remote},
		"unshared in a list":            {argv: "-f concat -i /media/l.txt /cache/b.mkv", world: world{"/media/l.txt": "file /home/a.mkv\n"}, want: ClauseUnshared, where: Local},
		"shared in a list":              {argv: "-f concat -i /media/l.txt /cache/b.mkv", world: world{"/media/l.txt": "file a.mkv\n"}, want: ClauseEncode, where: Remote},
		"unread":                        {argv: "-f concat -i /media/l.txt /cache/b.mkv", want: ClauseUnread, where: Local},
		"unread: a list on stdin":       {argv: "-f concat -i - /cache/b.mkv", want: ClauseUnread, where: Local},
		"fifo":                          {argv: "-i /media/p /cache/b.mkv", world: world{"/media/p": "fifo"}, want: ClauseFIFO, where: Local},
		"fifo: a socket file":           {argv: "-i /media/a.mkv /cache/s", world: world{"/cache/s": "socket"}, want: ClauseFIFO, where: Local},
		"a list that is a fifo":         {argv: "-f concat -i /media/p /cache/b.mkv", world: world{"/media/p": "fifo"}, want: ClauseUnread, where: Local},
		"loudness":                      {argv: "-i /media/a.flac -af ebur128=framelog=verbose -f null -", want: ClauseLoudness, where: Remote},
		"trickplay":                     {argv: "-i /media/a.mkv -vf fps=0.1 -f image2 /cache/t/%08d.jpg", want: ClauseTrickplay, where: Remote},
		"remux":                         {argv: "-i /media/a.mkv -c copy /cache/b.mp4", want: ClauseRemux, where: Local},
		"remux: audio only":             {argv: "-i /media/a.mkv -vn -c:a aac /cache/b.m4a", want: ClauseRemux, where: Local},
		"remux: video muted at input":   {argv: "-vn -i /media/a.mkv -af silencedetect -f null -", want: ClauseRemux, where: Local},
		"no remux: -c:v after -c":       {argv: "-i /media/a.mkv -c copy -c:v libx264 /cache/b.mp4", want: ClauseEncode, where: Remote},
		"no remux: one of two":          {argv: "-i /media/a.mkv -c copy /cache/b.mp4 -c:v libx264 /cache/c.mp4", want: ClauseEncode, where: Remote},
		"no remux: one stream of two":   {argv: "-i /media/a.mkv -map 0 -map 0 -c:v:0 libx264 -c:v:1 copy /cache/b.mkv", want: ClauseEncode, where: Remote},
		"remux: Jellyfin's way":         {argv: "-i /media/a.mkv -codec:v:0 copy -codec:a:0 aac /cache/b.mkv", want: ClauseRemux, where: Local},
		"no remux: opens a GPU":         {argv: "-init_hw_device cuda=cu:0 -i /media/a.mkv -c copy /cache/b.mp4", want: ClauseEncode, where: Remote},
		"segments":                      {argv: "-i /media/a.mkv -c:v libx264 -f hls /cache/x.m3u8", want: ClauseSegments, where: Remote},
		"encode":                        {argv: "-i /media/a.mkv -c:v libx264 /cache/x.mkv", want: ClauseEncode, where: Remote},
		"encode: lavfi to stdout":       {argv: "-f lavfi -i testsrc=d=1 -c:v libx264 -f matroska -", want: ClauseEncode, where: Remote},
		"encode: lavfi to nothing":      {argv: "-f lavfi -i testsrc=d=1 -c:v libx264 -f null /dev/null", want: ClauseEncode, where: Remote},
		"encode: no file at all":        {argv: "-f rawvideo -s 16x16 -i /dev/zero -t 1 -y /dev/null", want: ClauseEncode, where: Remote},
	}
}

func TestDecideClauses(t *testing.T) {
	for name, test := range clauseTests() {
		t.Run(name, func(t *testing.T) {
			program := "ffmpeg"
			if test.program != "" {
				program = test.program
			}
			env := environment(test.world)
			if test.egress {
				env.Egress = AnyEgress
			}
			if test.dir != "" {
				env.Dir = test.dir
			}
			d := Decide(Parse(program, lines(test.argv), env.Host), env)
			if d.Where != test.where || d.Clause != test.want {
				t.Errorf("got %s by %s (%s), want %s by %s", d.Where, d.Clause, d.Reason, test.where, test.want)
			}
			if d.Reason == "" || len(d.Problems) > 0 {
				t.Errorf("reason %q, problems %v", d.Reason, d.Problems)
			}
		})
	}
}

// TestDecideClausesComplete keeps the table above honest: every rule has a
// case that it decides, the way it says.
func TestDecideClausesComplete(t *testing.T) {
	tested := map[Clause]Where{}
	for _, test := range clauseTests() {
		tested[test.want] = test.where
	}
	for _, r := range rules {
		if where, ok := tested[r.clause]; !ok || where != r.where {
			t.Errorf("clause %s (%s) has no case of its own", r.clause, r.where)
		}
		if (r.match == nil) == (r.operand == nil) {
			t.Errorf("clause %s needs one question, of the command or of an operand", r.clause)
		}
	}
}

func TestDecideModes(t *testing.T) {
	tests := map[string]struct {
		mode     Mode
		argv     string
		world    world
		where    Where
		problems []string // a part of each
	}{
		"local is local":                    {mode: ForceLocal, argv: "-i /media/a.mkv -c:v libx264 /cache/b.mkv", where: Local},
		"remote takes information":          {mode: ForceRemote, argv: "-version", where: Remote},
		"remote takes a single picture":     {mode: ForceRemote, argv: "-i /media/a.mkv -vframes 1 /cache/b.jpg", where: Remote},
		"remote takes the network":          {mode: ForceRemote, argv: "-i http://tuner.lan/x.ts /cache/b.mkv", where: Remote},
		"remote takes the standard three":   {mode: ForceRemote, argv: "-i - -f null pipe:2", where: Remote},
		"remote takes no command":           {mode: ForceRemote, argv: "-hide_banner", where: Remote},
		"remote takes unreadable lists":     {mode: ForceRemote, argv: "-f concat -i /media/none.txt /cache/b.mkv", where: Remote},
		"remote refuses unshared files":     {mode: ForceRemote, argv: "-i /home/a.mkv /root/b.mkv", where: Remote, problems: []string{"/home/a.mkv", "/root/b.mkv"}},
		"remote refuses descriptors":        {mode: ForceRemote, argv: "-i pipe:7 /cache/b.mkv", where: Remote, problems: []string{"descriptor 7"}},
		"remote refuses the loopback":       {mode: ForceRemote, argv: "-i http://[::1]:8096/a /cache/b.mkv", where: Remote, problems: []string{"this machine"}},
		"remote refuses sockets":            {mode: ForceRemote, argv: "-i unix:/cache/s /cache/b.mkv", where: Remote, problems: []string{"socket"}},
		"remote refuses FIFOs":              {mode: ForceRemote, argv: "-i /media/p /cache/b.mkv", world: world{"/media/p": "fifo"}, where: Remote, problems: []string{"FIFO"}},
		"remote refuses capture devices":    {mode: ForceRemote, argv: "-f v4l2 -i /dev/video0 /cache/b.mkv", where: Remote, problems: []string{"device of this machine"}},
		"remote judges relative file names": {mode: ForceRemote, argv: "-i ../cache/a.mkv /cache/b.mkv", where: Remote, problems: []string{"relative to /app"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			env := environment(test.world)
			env.Mode = test.mode
			d := Decide(Parse("ffmpeg", lines(test.argv), env.Host), env)
			if d.Where != test.where || len(d.Problems) != len(test.problems) {
				t.Fatalf("got %s, problems %q, want %s, problems %q", d.Where, d.Problems, test.where, test.problems)
			}
			for i, part := range test.problems {
				if !strings.Contains(d.Problems[i], part) {
					t.Errorf("problem %q does not name %q", d.Problems[i], part)
				}
			}
		})
	}
}

func TestReasonKeepsSecrets(t *testing.T) {
	argv := []string{"-i", "https://user:hunter2@tuner.lan/live/KEY?token=T", "/cache/b.mkv"}
	d := Decide(Parse("ffmpeg", argv, Host{}), environment(nil))
	for _, secret := range []string{"hunter2", "KEY", "token"} {
		if strings.Contains(d.Reason, secret) {
			t.Errorf("reason %q tells %q", d.Reason, secret)
		}
	}
	if !strings.Contains(d.Reason, "tuner.lan") {
		t.Errorf("reason %q does not name the host", d.Reason)
	}
}

func TestShares(t *testing.T) {
	tests := map[string]struct {
		shared string
		name   string
		want   bool
	}{
		"itself":               {"/media", "/media", true},
		"below":                {"/media", "/media/a/b", true},
		"a longer name":        {"/media", "/media2/a", false},
		"above":                {"/media/a", "/media", false},
		"second":               {"/x:/media/", "/media/a", true},
		"root":                 {"/", "/anything", true},
		"empty list":           {"", "/a", false},
		"empty entries":        {"::", "/a", false},
		"relative entry":       {"media", "/media/a", false},
		"relative name":        {"/media", "media/a", false},
		"unclean entry":        {"/media//x/..", "/media/a", true},
		"no name":              {"/", "", false},
		"prefix of components": {"/a/bc", "/a/b/c", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			env := Environment{Shared: SplitShared(test.shared)}
			if got := env.shares(test.name); got != test.want {
				t.Errorf("%q shares %q = %t", test.shared, test.name, got)
			}
		})
	}
}

func TestParseMode(t *testing.T) {
	for text, want := range map[string]Mode{"": Auto, "auto": Auto, "local": ForceLocal, "remote": ForceRemote} {
		if mode, ok := ParseMode(text); mode != want || !ok {
			t.Errorf("ParseMode(%q) = %q, %t", text, mode, ok)
		}
	}
	if _, ok := ParseMode("Remote"); ok {
		t.Error("a mode that does not exist was accepted")
	}
}
