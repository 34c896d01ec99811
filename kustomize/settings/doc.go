// Package settings is the file settings.yaml of an install: what it may say, what
// each of it means, and which values are refused. Kustomize itself knows none of
// that: its components copy what the file says, right or wrong, to where it
// belongs. Package kustomize and `ffpod render` check it first.
//
// types.go is the one source: the strict decoding, the comments in the files that
// `ffpod init` writes and docs/configuration.md are all made from it.
package settings

//go:generate go run ../reference
