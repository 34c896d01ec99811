// Package stack proves the deployment of Jellyfin, kustomize/overlays/minimal, on
// a real cluster: what is applied there is what a user applies, except for the
// namespace and Jellyfin's image. No image can be pulled there, so a server that
// behaves towards kubelet, viewers, files and ffmpeg as Jellyfin does
// (test/jellyfin) is put under the image's name, with Debian's ffmpeg where
// Jellyfin's would be.
//
//	viewer ── API server's proxy ──▶ Service jellyfin ──▶ simulated server
//	                                        its $JELLYFIN_FFMPEG is the shim ──▶ worker
//
// The viewer plays a film in segments while parts are deleted and come back. The
// specs are ordered: the last removes the install and looks at what is left.
package stack
