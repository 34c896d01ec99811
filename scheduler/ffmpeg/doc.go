// Package ffmpeg understands the command lines of ffmpeg and ffprobe without
// changing them: which files, URLs, descriptors and devices they touch, what
// they are for, and whether they may run on another machine.
//
//	argv ── Parse ──> Command{Kind, Operands, Devices, Encoders, ...}
//	                     │
//	Environment ──────── Decide ──> Decision{Where, Clause, Reason}
//
// Command.Requirements tells what the machine that runs it must be able to do,
// Command.HardwareProbe whether only a GPU can answer it. Words and Filters are
// the parser's own walks over a command line and a graph, for who rewrites them.
//
// It is linked into the shim, in front of every ffmpeg that a caller starts,
// so it does no I/O but through the functions of Host, keeps no tables that
// need building at start-up, and takes microseconds. It imports the standard
// library only.
//
// # The grammar
//
// ffmpeg takes a word that starts with '-' and is longer than that as an
// option, "--" makes the next word a file name, anything else is an output.
// An option is looked up up to its first ':' (the rest is a stream specifier),
// in this order: -i; the program's own table, where flags have no value and
// the options that print something and exit have an optional one; the options
// of the libraries, which always have one, even if it is 0 or 1; and last a
// "no" in front of a boolean of the program's own. So all that is needed to
// split a command line right is the list of flags; it covers ffmpeg 4.4 to 8.
// -autorotate and -autoscale had a value before version 7 and have none since:
// a following 0 or 1 is taken as theirs. "-/opt FILE" (version 7) reads the
// value of -opt from a file. Options apply to the next file, input or output.
// ffprobe's grammar is the same but for "--", which ends all options, and for
// bare words, which are inputs.
//
// # Escaping
//
// Everything quoted in ffmpeg goes through av_get_token: white space around a
// token is dropped, a backslash takes the next character literally, single
// quotes take everything up to the next single quote literally, backslashes
// included. Levels stack:
//
//   - A filter graph is cut at "[],;" first, which removes one level from the
//     arguments of each filter; they are cut at ':' next, which removes the
//     second from each value. A shell, if there was one, removed its own level
//     before. So the file "it's: 1.srt" is filename=it\\\'s\\: 1.srt in a graph.
//   - Arguments without "key=" fill the filter's options in order, until the
//     first that has one. A key with a leading '/' reads the value from a file.
//   - A concat script has one directive per line; the name after "file" is one
//     token. It is relative to the directory of the script, unless it starts
//     with '/' or with a protocol.
//   - "concat:a|b" knows no escaping at all. The tee muxer cuts at '|' and
//     removes one level, and a second from the options in brackets.
//
// A name that ffmpeg opens as a URL has a protocol if letters, digits, '+',
// '-' and '.' up to a ':' spell one; otherwise it is a file. Fonts, LUTs and
// logs of filters are plain names: "file:" in front of them is part of the name.
//
// # What it does not know
//
//   - What lies inside media: HLS and DASH playlists as inputs, external
//     references of MOV, and the subtitle files beside an index are not opened.
//   - Concat scripts inside scripts, or without -f concat, are recognised by the
//     extensions .ffconcat and .concat only; opening every input to look would
//     cost more than it finds.
//   - Presets by name (-vpre and its kin), fontconfig, LADSPA and frei0r plug-ins
//     by name, and models built into libraries: they belong to the machine that
//     runs ffmpeg.
//   - Filters newer than the table: an argument that starts with '/' is taken as
//     a file to be read, so that such a command rather stays where it is.
//   - Commands written into a running graph (sendcmd, zmq) that open further files.
package ffmpeg
