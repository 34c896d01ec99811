// Package jellyfin is a Jellyfin server as its ffmpeg sees it: which descriptors
// it redirects, what it writes to them and when, what it polls, how long it
// waits, how it kills, and what it takes for success. It speaks as release 10.11
// and as 12.0, which differ (Flavour).
//
// The package is a client without mercy, not a model of the server's features:
// whatever a Jellyfin call site believes about a process and its files, a
// scenario believes here too, and says so in its Report when it was wrong.
//
//	suite (ginkgo) ── Order as JSON ──▶ simulator ──▶ ffmpeg | the shim
//	      ◀───────── Report as JSON ──────┘    └─ polls, reads, kills
//
// The simulator (test/jellyfin/simulator) is one static program. The suite runs
// it on its own machine against plain ffmpeg, which proves the simulator, and in
// a client pod beside the shim, which proves ffpod: a descriptor is a descriptor
// only in the pod of its process. Copied into a directory named "fake" it is
// itself an ffmpeg, which tells what it was given and does what real ffmpeg does
// not do on demand.
//
// testdata/vectors.jsonl holds command lines of real servers. Each runs against
// plain ffmpeg and against ffpod, and what Jellyfin would see of both is
// compared (Compare). Its paths lie below /media and /cache as in a pod; an
// Order's Root goes before both.
package jellyfin
