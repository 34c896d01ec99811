// Command build makes ffpod's images without Docker, for machines that have
// only Go and Debian: it reads the same Dockerfiles and realises them.
//
//	go run ./images/build -o DIR                 ffpod.tar and worker.tar
//	go run ./images/build -o DIR -platform linux/arm64 ffpod
//	go run ./images/build -o DIR test/data/postgres  an image that only tests use
//
// The archives are docker-archives, tagged ffpod/ffpod:dev and ffpod/shim:dev (one
// image), and ffpod/worker:dev:
// `docker load`, `ctr -n k8s.io images import`, `kind load image-archive` and
// `k3s ctr images import` read them.
//
// # What of a Dockerfile is understood
//
// A Dockerfile is parsed strictly; an instruction, a flag or a command that is
// not listed here is an error with its line, never passed over.
//
//	FROM golang:…   a tool stage: the work tree stands for its WORKDIR, this
//	                machine's Go for its toolchain
//	FROM debian:…   a base taken from this machine, which must run Debian or
//	                one of its kin: the shell and the essential tools
//	FROM scratch    nothing
//	FROM ffpod/…    an image that was built before
//	RUN             `go build … -o DIR/ PACKAGE…` in a tool stage,
//	                `apt-get install PACKAGE…` on Debian; `apt-get update` and
//	                the removal of its lists are nothing here
//	COPY [--from]   one file, or a directory's content
//	ARG ENV USER WORKDIR ENTRYPOINT CMD
//
// A Debian package becomes its own files without documentation, and the shared
// libraries that these name, with the links that lead there: a third of what
// apt would install, for what a library merely recommends stays out.
// /var/lib/dpkg/status.d names the packages, for scanners.
//
// # Layers
//
// A layer has sorted names, no times and no owners, so that equal content is an
// equal digest, and an unchanged image is not imported twice. Layers are kept
// under $FFPOD_CACHE, or ffpod in the user's cache directory: the Debian layer
// as long as no file of it changes size or time, the others by content.
package main
