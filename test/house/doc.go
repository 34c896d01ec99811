// Package house holds the tests of the repository itself: which package may import
// which, what each binary links, that every package says what it is, and that the
// scheduler's Role grants what its code calls and nothing else.
package house
