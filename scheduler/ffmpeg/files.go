package ffmpeg

import (
	"path"
	"strings"
)

// FileSet is a file that a command writes, or a set of files that it numbers:
// those in Dir whose names are Prefix, or begin with it.
type FileSet struct {
	Dir    string
	Prefix string
	Exact  bool // Prefix is the whole name
}

// FileSets returns the files that the command writes, by their names: outputs and
// everything that an option lets it write beside them. A set may hold more than
// the command writes, never less, with two exceptions: what a pattern in the name
// of a directory stands for, and the logs of ffmpeg about itself.
func (c *Command) FileSets() []FileSet {
	var sets []FileSet
	for i := range c.Operands {
		muxer, o := c.segmenter(i), &c.Operands[i]
		if muxer == "" {
			continue
		}
		dir := path.Dir(o.Path)
		sets = addSet(sets, set(strings.TrimSuffix(o.Path, path.Ext(o.Path)), false))
		switch { // the names that the muxers choose themselves
		case muxer == "dash":
			sets = addSet(sets, FileSet{Dir: dir, Prefix: "chunk-stream"})
			sets = addSet(sets, FileSet{Dir: dir, Prefix: "init-stream"})
		case !c.names("hls_fmp4_init_filename"):
			sets = addSet(sets, FileSet{Dir: dir, Prefix: "init"})
		}
	}
	for i := range c.Operands {
		o := &c.Operands[i]
		switch {
		case o.Role != Output || !strings.HasPrefix(o.Path, "/") || isOwnLog(o):
		case o.Option == "dump_attachment" && o.Raw == "":
			sets = addSet(sets, FileSet{Dir: o.Path})
		default:
			sets = addSet(sets, set(o.Path, true))
		}
	}
	return sets
}

// segmenter is the muxer, hls or dash, of an operand that is the playlist of its
// segments. The tee muxer's outputs are known by their names only.
func (c *Command) segmenter(operand int) string {
	o := &c.Operands[operand]
	if o.Role != Output || o.Option != "" && o.Option != "tee" || !strings.HasPrefix(o.Path, "/") {
		return ""
	}
	format := formatOf(o.Path)
	for _, out := range c.outs {
		if out.operand == operand && out.format != "tee" {
			format = out.format
		}
	}
	if format != "hls" && format != "dash" {
		return ""
	}
	return format
}

// names says that an option of the command names a file.
func (c *Command) names(option string) bool {
	for i := range c.Operands {
		if c.Operands[i].Option == option {
			return true
		}
	}
	return false
}

func isOwnLog(o *Operand) bool {
	switch o.Option {
	case "report", "FFREPORT", "vstats":
		return true
	}
	return false
}

// set makes a set of a name in which a pattern may stand.
func set(name string, exact bool) FileSet {
	dir, base := path.Split(name)
	if n := strings.IndexAny(base, "%$"); n >= 0 {
		base, exact = base[:n], false
	}
	return FileSet{Dir: path.Clean(dir), Prefix: base, Exact: exact}
}

func addSet(sets []FileSet, s FileSet) []FileSet {
	if strings.Contains(s.Dir, "%") {
		return sets
	}
	for _, have := range sets {
		if have == s || have.Dir == s.Dir && !have.Exact && strings.HasPrefix(s.Prefix, have.Prefix) {
			return sets
		}
	}
	return append(sets, s)
}
