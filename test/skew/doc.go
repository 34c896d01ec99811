// Package skew proves that the previous release and this one work together:
// shim, scheduler and supervisor of either, in all eight combinations, on the real
// cluster of $KUBECONFIG. A rolling update passes through most of them, and
// the shim stays behind as long as its pod is not restarted.
//
//	namespace ffpod-skew-old          namespace ffpod-skew-new
//	  scheduler of the previous one     scheduler of this one
//	  ├─ class old: its workers         ├─ class old
//	  └─ class new: today's workers     └─ class new
//	  client pod: /opt/ffpod/old/ffmpeg and /opt/ffpod/new/ffmpeg
//
// The previous release is built from testdata/previous.tar.gz (its README says how
// that came to be) into the image ffpod/ffpod:previous: `make skew` does all of it.
//
// What must hold in every combination is what a caller may always count on: bytes
// exact and the exit right, also over the loss of a scheduler or of a channel, since
// both releases know Resume; no ffmpeg left behind.
package skew
