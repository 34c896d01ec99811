// Package jellyfin is what ffpod does to Jellyfin's own files, inside the pod
// that mounts its configuration:
//
//	Prepare   before Jellyfin starts: directories, whether they can be written,
//	          the first encoding.xml, network.xml and system.xml
//	Healthy   whether it answers Healthy: the exec probe
//	Apply     changes settings of an install that exists
//
// Jellyfin reads each file with a serializer that gives what is missing its
// default, and writes it back whole. So a seeded file holds only what was asked
// for, and a change replaces the bytes of one element and leaves all others.
package jellyfin
