// Package docs holds the tests of what is written for users: that the commands in
// README.md and docs/ name verbs, flags, targets, objects and paths that there are,
// that settings and manifests in them are valid, that links lead somewhere, and
// that the commands which need no cluster do what is said of them.
package docs
