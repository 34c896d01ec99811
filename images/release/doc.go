// Command release makes a release of ffpod out of a clean, tagged work tree, and
// brings it to a registry. docs/release.md is the recipe around it.
//
//	go run ./images/release prepare VERSION        the tree's image tags, before the tag
//	go run ./images/release build -o DIR VERSION   everything below, into DIR
//	go run ./images/release push DIR               the images, to a registry
//	go run ./images/release check DIR              checksums, images, manifests agree
//
// In DIR:
//
//	oci/                             an OCI layout: an index per image, SBOMs as referrers
//	ffpod-VERSION-images-linux-ARCH.tar   the same for nodes without a registry
//	ffpod-VERSION-kustomize.tar.gz   the manifests with every image by digest
//	ffpod-VERSION-linux-ARCH         the command line tool
//	IMAGE-VERSION-linux-ARCH.cdx.json     what an image consists of, CycloneDX
//	images.txt                       the references by digest, one a line
//	NOTES.md                         from CHANGELOG.md, with the digests
//	SHA256SUMS                       of all of these: sign it, and all is signed
//
// Nothing in it depends on the day, the machine's clock or directories: the same
// commit, Go and Debian packages give the same bytes. Times are the commit's.
//
// # The gate
//
// build refuses known vulnerabilities: govulncheck asks Go's database about what
// the binaries call, and apt is asked whether Debian has newer packages than those
// in the images. A database that does not answer stops the build, too. -offline
// builds without asking, and NOTES.md then says that nobody has asked.
package main
