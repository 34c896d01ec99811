// Package translate rewrites command lines of ffmpeg between the hardware of
// several makers and software, so that one Jellyfin, which knows one kind of
// hardware, can use all that a cluster has. It is pure: no I/O, no state.
//
//	argv ── words ──> plan ── edits ──> argv for NVENC, QSV, VAAPI or software
//	                   │
//	filter graph ── steps ── render ──> filters of the target
//
// # What it does
//
// The work stays where it was: what the source does on its GPU is done on the
// target's, or by the CPU if the target is software; what the source does in
// memory stays as it is written. Only the encoder changes place in a line that
// is all software. So a line changes in: the devices it opens, -hwaccel and
// its kin, decoders of one maker, the encoder of the video and its options, the
// filters of one maker, and the transfers between memory and GPU.
// Never in: inputs, outputs, maps, seeks, timestamps, audio, subtitles and the
// options of muxers.
//
// # What it refuses
//
// Anything it was not made for: an option, a filter or a value of one that it
// does not know, several outputs, hardware of two makers. The error names the
// argument. Unknown is never "probably harmless": the line comes from a program
// that meant something by every word of it.
//
// # Why the numbers change as they do
//
// Presets are matched by rank, as Jellyfin's own list of them does. A quality of
// one encoder is kept as the number it is for H.264 and HEVC (crf, cq,
// global_quality and qp share the scale of 0 to 51); a quality under a cap of
// bits becomes that many bits for a hardware encoder, which is how Jellyfin
// would have asked for it. The level is left out for NVENC, which fails on one
// that is too low where others only warn, and for libx265 and AV1, which choose it.
package translate
