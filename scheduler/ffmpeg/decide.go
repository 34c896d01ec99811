package ffmpeg

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Mode is the shim's setting FFPOD_MODE.
type Mode string

// The modes. The empty Mode is Auto.
const (
	Auto        Mode = "auto"
	ForceLocal  Mode = "local"
	ForceRemote Mode = "remote"
)

// ParseMode reads a mode; an empty string is Auto.
func ParseMode(s string) (Mode, bool) {
	switch Mode(s) {
	case "", Auto:
		return Auto, true
	case ForceLocal, ForceRemote:
		return Mode(s), true
	}
	return Auto, false
}

// Where a session runs.
type Where string

// The two answers of Decide.
const (
	Local  Where = "local"
	Remote Where = "remote"
)

// Environment is what a decision depends on beside the command.
type Environment struct {
	Host
	// Shared are the directories that workers mount under the same names,
	// absolute. Relative and empty entries are ignored.
	Shared []string
	Mode   Mode
	// Egress says which network inputs workers may reach.
	Egress Egress
	// Own tells whether a host, a name or an address, is the caller's own pod. Nil:
	// none is.
	Own func(host string) bool
}

// Egress says which network inputs workers may reach.
type Egress string

// The extents. Jellyfin reads live television from itself, by its pod's address.
const (
	NoEgress     Egress = ""
	CallerEgress Egress = "caller" // the caller's pod alone
	AnyEgress    Egress = "true"   // every address
)

// SplitShared reads a colon-separated list of directories.
func SplitShared(list string) []string {
	var shared []string
	for list != "" {
		var dir string
		dir, list, _ = strings.Cut(list, ":")
		if dir != "" {
			shared = append(shared, path.Clean(dir))
		}
	}
	return shared
}

// Clause names the rule that decided.
type Clause string

// The clauses, in the order in which they are tried; the first that matches
// decides. The comment of rules says why they are in this order.
const (
	ClauseModeLocal     Clause = "mode-local"
	ClauseModeRemote    Clause = "mode-remote"
	ClauseInformation   Clause = "information"
	ClauseHardwareProbe Clause = "hardware-probe"
	ClauseIdle          Clause = "idle"
	ClauseFFprobe       Clause = "ffprobe"
	ClauseSourceCheck   Clause = "source-check"
	ClauseAttachment    Clause = "attachment"
	ClauseSubtitle      Clause = "subtitle"
	ClauseImage         Clause = "image"
	ClauseDescriptor    Clause = "descriptor"
	ClauseSocket        Clause = "socket"
	ClauseLoopback      Clause = "loopback"
	ClauseNetwork       Clause = "network"
	ClauseDevice        Clause = "device"
	ClauseUnshared      Clause = "unshared"
	ClauseUnread        Clause = "unread"
	ClauseFIFO          Clause = "fifo"
	ClauseLoudness      Clause = "loudness"
	ClauseTrickplay     Clause = "trickplay"
	ClauseRemux         Clause = "remux"
	ClauseSegments      Clause = "segments"
	ClauseEncode        Clause = "encode"
)

// Decision is the answer of Decide.
type Decision struct {
	Where  Where
	Clause Clause
	// Reason is one line for a person, without a period.
	Reason string
	// Problems is filled only when the mode forces a session to be remote that
	// a worker could not run: one line each. The caller must then refuse to
	// start anything, in one line that joins them, and not fall back to local:
	// who forces remote has no ffmpeg, no CPU or no business on this machine,
	// or is testing that nothing runs here.
	Problems []string
}

// rule is one clause. One of match, about the whole command, and operand,
// about any one of its operands, is set; it returns the reason, or an empty
// string if the clause does not apply.
type rule struct {
	clause  Clause
	where   Where
	match   func(*Command, *Environment) string
	operand func(*Operand, *Environment) string
}

func (r *rule) reason(c *Command, e *Environment) string {
	if r.match != nil {
		return r.match(c, e)
	}
	for i := range c.Operands {
		if reason := r.operand(&c.Operands[i], e); reason != "" {
			return reason
		}
	}
	return ""
}

// rules is the decision in Auto mode, in order. What stays local although a
// worker could do it comes first and is cheap to find; what a worker cannot do
// comes next, the questions to the file system last; the rest is remote.
var rules = [...]rule{
	{clause: ClauseInformation, where: Local, match: information},
	{clause: ClauseHardwareProbe, where: Remote, match: hardwareProbe},
	{clause: ClauseIdle, where: Local, match: idle},
	{clause: ClauseFFprobe, where: Local, match: ffprobe},
	{clause: ClauseSourceCheck, where: Local, match: sourceCheck},
	{clause: ClauseAttachment, where: Local, match: attachment},
	{clause: ClauseSubtitle, where: Local, match: subtitle},
	{clause: ClauseImage, where: Local, match: image},
	{clause: ClauseDescriptor, where: Local, operand: descriptorProblem},
	{clause: ClauseSocket, where: Local, operand: socketProblem},
	{clause: ClauseLoopback, where: Local, operand: loopbackProblem},
	{clause: ClauseNetwork, where: Local, match: network},
	{clause: ClauseDevice, where: Local, operand: deviceProblem},
	{clause: ClauseUnshared, where: Local, operand: unsharedProblem},
	{clause: ClauseUnread, where: Local, match: unread},
	{clause: ClauseFIFO, where: Local, operand: fifoProblem},
	{clause: ClauseLoudness, where: Remote, match: loudness},
	{clause: ClauseTrickplay, where: Remote, match: trickplay},
	{clause: ClauseRemux, where: Local, match: remux},
	{clause: ClauseSegments, where: Remote, match: segments},
	{clause: ClauseEncode, where: Remote, match: encode},
}

// Decide answers where a command runs, without asking anybody else. In Auto
// mode it walks the clauses in the order of their constants. ForceLocal and
// ForceRemote leave them aside; see Decision.Problems for what ForceRemote
// cannot do.
//
// A path is shared if its cleaned text lies below a shared directory, by whole
// components: "/media2" is not below "/media". Symbolic links are not
// resolved. The name is what the worker gets, and the worker resolves it among
// its own mounts; resolving it here would judge the names of this machine's
// mounts, which a worker need not have, and would be stale when it is used.
// Nothing is lost: a link that leads out of the shared directories finds
// nothing on a worker.
func Decide(cmd Command, env Environment) Decision {
	switch env.Mode {
	case ForceLocal:
		return Decision{Where: Local, Clause: ClauseModeLocal, Reason: "the mode is local"}
	case ForceRemote:
		return Decision{
			Where: Remote, Clause: ClauseModeRemote, Reason: "the mode is remote",
			Problems: problems(&cmd, &env),
		}
	}
	for i := range rules {
		if reason := rules[i].reason(&cmd, &env); reason != "" {
			return Decision{Where: rules[i].where, Clause: rules[i].clause, Reason: reason}
		}
	}
	return Decision{Where: Local, Clause: ClauseIdle, Reason: "nothing to encode or decode"}
}

// problems lists why a worker could not run the command.
func problems(c *Command, e *Environment) []string {
	if c.Information != "" || c.isIdle() && len(c.Operands) == 0 {
		return nil
	}
	var all []string
	for i := range c.Operands {
		o := &c.Operands[i]
		for _, problem := range [...]func(*Operand, *Environment) string{
			descriptorProblem, socketProblem, loopbackProblem, deviceProblem, unsharedProblem, fifoProblem,
		} {
			if reason := problem(o, e); reason != "" {
				all = appendNew(all, reason)
				break
			}
		}
	}
	if c.cut {
		all = append(all, tooMany)
	}
	return all
}

const tooMany = "it has more files than can be checked"

func information(c *Command, _ *Environment) string {
	if c.Information == "" {
		return ""
	}
	return "-" + c.Information + " asks about the program itself"
}

func hardwareProbe(c *Command, _ *Environment) string {
	if c.isHardwareProbe() {
		return "it asks about the hardware (" + c.Devices[0].Type + "), which the workers have"
	}
	return ""
}

func idle(c *Command, _ *Environment) string {
	if c.isIdle() && !c.dumps && c.Program == FFmpeg {
		return "it has no input"
	}
	return ""
}

func ffprobe(c *Command, _ *Environment) string {
	if c.Program == FFprobe {
		return "ffprobe stays local"
	}
	return ""
}

func sourceCheck(c *Command, _ *Environment) string {
	if c.isSourceCheck() {
		return "an empty source into nothing only checks the program"
	}
	return ""
}

func attachment(c *Command, _ *Environment) string {
	if c.dumps {
		return "extracting attachments is short and names its files in the working directory"
	}
	return ""
}

func subtitle(c *Command, _ *Environment) string {
	below := func(o output) bool { return strings.Contains(c.at(o).Path, "/subtitles/") }
	if c.Kind == Subtitle && c.all(below) {
		return "subtitles are written below a subtitles directory"
	}
	return ""
}

func image(c *Command, _ *Environment) string {
	if c.all(func(o output) bool { return o.isPicture() && o.oneFrame }) {
		return "one picture is made sooner than a worker is found"
	}
	return ""
}

func descriptorProblem(o *Operand, _ *Environment) string {
	switch {
	case o.FD < 0, o.Role == Input && o.FD == 0, o.Role == Output && (o.FD == 1 || o.FD == 2):
		return ""
	case o.FD == unknownFD:
		return name(o) + " is an open descriptor of the caller"
	}
	return name(o) + " is descriptor " + strconv.Itoa(o.FD) + " of the caller"
}

func socketProblem(o *Operand, _ *Environment) string {
	if o.Protocol == "unix" {
		return name(o) + " is a socket of this machine"
	}
	return ""
}

func loopbackProblem(o *Operand, _ *Environment) string {
	if isNetwork(o.Protocol) && isLoopback(o.Raw) {
		return name(o) + " is this machine itself"
	}
	return ""
}

func network(c *Command, e *Environment) string {
	if e.Egress == AnyEgress {
		return ""
	}
	for i := range c.Operands {
		o := &c.Operands[i]
		if !isNetwork(o.Protocol) {
			continue
		}
		if e.Egress != CallerEgress {
			return name(o) + " is on the network, which workers may not reach"
		}
		if host, _ := hostOf(o.Raw); e.Own == nil || !e.Own(host) {
			return name(o) + " is on the network, of which workers may reach the caller's pod alone"
		}
	}
	return ""
}

func deviceProblem(o *Operand, _ *Environment) string {
	switch {
	case o.Role == Node || o.Path != "" || isInline(o.Protocol) || isNetwork(o.Protocol):
		return ""
	case o.Protocol == "device":
		return name(o) + " is a device of this machine"
	case o.Protocol == "file" || o.Protocol == "unix":
		return "" // an empty name is unshared; sockets have their own clause
	}
	return name(o) + " has an unknown protocol"
}

func unsharedProblem(o *Operand, e *Environment) string {
	switch {
	case o.Role == Node || isInline(o.Protocol) || isNetwork(o.Protocol),
		o.Protocol == "unix" || o.Protocol == "device":
		return ""
	case o.Path == "" && o.Protocol != "file":
		return ""
	case !e.shares(o.Path):
		return name(o) + " is not below a shared directory"
	case o.Relative && !e.shares(e.Dir):
		return name(o) + " is relative to " + e.Dir + ", which is not shared"
	}
	return ""
}

func (e *Environment) shares(name string) bool { return IsShared(e.Shared, name) }

// IsShared reports whether an absolute path is one of the shared directories or
// lies in one, by its cleaned text.
func IsShared(shared []string, name string) bool {
	if !strings.HasPrefix(name, "/") {
		return false
	}
	for _, dir := range shared {
		if dir = path.Clean(dir); strings.HasPrefix(dir, "/") && below(dir, path.Clean(name)) {
			return true
		}
	}
	return false
}

// below reports whether a clean path is dir or lies in it.
func below(dir, name string) bool {
	return dir == "/" || strings.HasPrefix(name, dir) && (len(name) == len(dir) || name[len(dir)] == '/')
}

func unread(c *Command, _ *Environment) string {
	for i := range c.Operands {
		if c.Operands[i].Unread {
			return name(&c.Operands[i]) + " names further files but cannot be read"
		}
	}
	if c.cut {
		return tooMany
	}
	return ""
}

func fifoProblem(o *Operand, e *Environment) string {
	if e.Stat == nil || o.Path == "" || o.Role == Node {
		return ""
	}
	mode, err := e.Stat(o.Path)
	switch {
	case err != nil:
		return ""
	case mode&fs.ModeNamedPipe != 0:
		return name(o) + " is a FIFO"
	case mode&fs.ModeSocket != 0:
		return name(o) + " is a socket"
	}
	return ""
}

func loudness(c *Command, _ *Environment) string {
	if c.Kind == Loudness {
		return "measuring loudness decodes the whole file"
	}
	return ""
}

func trickplay(c *Command, _ *Environment) string {
	if c.Kind == Trickplay {
		return "a series of pictures decodes the whole file"
	}
	return ""
}

// remux keeps local what costs less than it takes to start it elsewhere. A
// command that opens a GPU is none of these, whatever its codecs are.
func remux(c *Command, _ *Environment) string {
	if c.graphs > 0 || len(c.Devices) > 0 || len(c.HWAccels) > 0 {
		return ""
	}
	mute := len(c.ins) > 0
	for _, in := range c.ins {
		mute = mute && in.noVideo
	}
	if c.all(func(o output) bool { return o.video == "copy" }) {
		return "video is copied"
	}
	if c.all(func(o output) bool { return mute || o.noVideo || o.video == "copy" }) {
		return "no video is decoded or encoded"
	}
	return ""
}

func segments(c *Command, _ *Environment) string {
	if c.any(output.isSegmented) {
		return "it transcodes into segments and every file is shared"
	}
	return ""
}

func encode(c *Command, _ *Environment) string {
	if len(c.outs) > 0 {
		return "it encodes or decodes and every file is shared"
	}
	return ""
}

// name says which operand a reason is about.
func name(o *Operand) string {
	var b strings.Builder
	b.WriteString(string(o.Role))
	b.WriteByte(' ')
	switch {
	case o.Path != "":
		b.WriteString(o.Path)
	case o.Raw == "":
		b.WriteString(`""`)
	default:
		b.WriteString(withoutSecrets(o.Raw))
	}
	if o.Option != "" && o.Option != "i" {
		b.WriteString(" (of " + o.Option + ")")
	}
	return b.String()
}

// withoutSecrets keeps the protocol and the host of a URL: user names,
// passwords, tokens and stream keys live in the rest.
func withoutSecrets(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return url
	}
	end := ""
	if n := strings.IndexAny(rest, "/?#"); n >= 0 {
		rest, end = rest[:n], "/..."
	}
	if n := strings.LastIndexByte(rest, '@'); n >= 0 {
		rest = rest[n+1:]
	}
	return scheme + "://" + rest + end
}
