// Package wire is the session protocol on the wire: wire.proto and what is
// generated from it (`make generate`). Package session says who sends which
// frame when, and keeps the rules.
package wire
