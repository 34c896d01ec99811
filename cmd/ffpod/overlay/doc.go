// Package overlay writes the small directory that an install is made of: from
// choices, or from the values of a Helm chart that it replaces. The directory is
// the user's from then on; nothing reads the choices again.
package overlay
