package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/package-url/packageurl-go"
)

// contents are the parts of an image, as its own files tell of them.
type contents struct {
	programs map[string]program // Go's, by path
	packages []deb
	system   map[string]string // /etc/os-release
}

type program struct {
	body []byte
	info *buildinfo.BuildInfo
}

type deb struct{ name, version, architecture, source, maintainer, homepage string }

// scan reads Go's build information out of the programs, and dpkg's stanzas.
// Programs of a Debian package are its; any other that Go did not make would be one
// that nobody knows anything of, and is refused.
func scan(img v1.Image) (*contents, error) {
	c := &contents{programs: map[string]program{}, system: map[string]string{}}
	files := mutate.Extract(img)
	defer files.Close()
	for tr := tar.NewReader(files); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg {
			continue
		}
		switch {
		case path.Dir(name) == "var/lib/dpkg/status.d":
			text, err := io.ReadAll(tr)
			if err != nil {
				return nil, err
			}
			c.packages = append(c.packages, stanza(string(text)))
		case name == "usr/lib/os-release":
			text, err := io.ReadAll(tr)
			if err != nil {
				return nil, err
			}
			for _, line := range strings.Split(string(text), "\n") {
				if key, value, ok := strings.Cut(line, "="); ok {
					c.system[key] = strings.Trim(value, `"`)
				}
			}
		case strings.HasPrefix(name, "ffpod/"):
			p := program{}
			if p.body, err = io.ReadAll(tr); err != nil {
				return nil, err
			}
			if p.info, err = buildinfo.Read(bytes.NewReader(p.body)); err != nil {
				return nil, fmt.Errorf("/%s: %w; what it is made of cannot be told", name, err)
			}
			c.programs[name] = p
		}
	}
	if len(c.programs) == 0 {
		return nil, errors.New("no program of ffpod is in it")
	}
	if len(c.system) > 0 && len(c.packages) == 0 {
		return nil, errors.New("it is built on a system and names no package in /var/lib/dpkg/status.d; make it with images/build")
	}
	slices.SortFunc(c.packages, func(a, b deb) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.architecture, b.architecture))
	})
	return c, nil
}

func stanza(text string) deb {
	var d deb
	for _, line := range strings.Split(text, "\n") {
		key, value, _ := strings.Cut(line, ": ")
		switch key {
		case "Package":
			d.name = value
		case "Version":
			d.version = value
		case "Architecture":
			d.architecture = value
		case "Source":
			d.source = value
		case "Maintainer":
			d.maintainer = value
		case "Homepage":
			d.homepage = value
		}
	}
	return d
}

// sbom writes what an image consists of, and returns it as a referrer of the image.
func (r *release) sbom(out string, i image, img v1.Image) (v1.Image, error) {
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	bom := i.contents.bom(i, r.version, digest, r.created)
	var text bytes.Buffer
	encoder := cyclonedx.NewBOMEncoder(&text, cyclonedx.BOMFileFormatJSON)
	encoder.SetPretty(true)
	if err := encoder.EncodeVersion(bom, cyclonedx.SpecVersion1_6); err != nil {
		return nil, err
	}
	file := fmt.Sprintf("%s-%s-linux-%s.cdx.json", i.name, r.version, i.goarch)
	if err := os.WriteFile(filepath.Join(out, file), text.Bytes(), 0o644); err != nil {
		return nil, err
	}
	return referrer(img, text.Bytes(), map[string]string{
		"org.opencontainers.image.created": r.created.Format(time.RFC3339), "org.opencontainers.image.title": file})
}

func (c *contents) bom(i image, version string, digest v1.Hash, created time.Time) *cyclonedx.BOM {
	b := &builder{seen: map[string]bool{}}
	root := packageurl.NewPackageURL("oci", "", i.name, digest.String(), packageurl.QualifiersFromMap(map[string]string{
		"arch": i.goarch, "repository_url": fullHome + i.name}), "").ToString()
	var top []string
	for _, name := range sortedKeys(c.programs) {
		top = append(top, b.program(i.goarch, name, version, c.programs[name]))
	}
	distribution := c.system["ID"]
	if distribution != "" {
		id := distribution + "-" + c.system["VERSION_ID"]
		top = append(top, b.add(cyclonedx.Component{BOMRef: "os:" + id, Type: cyclonedx.ComponentTypeOS, Name: distribution,
			Version: c.system["VERSION_ID"], Description: c.system["PRETTY_NAME"]}))
		for _, d := range c.packages {
			top = append(top, b.deb(d, distribution, id))
		}
	}
	b.depends(root, top)
	slices.SortFunc(b.components, func(x, y cyclonedx.Component) int { return strings.Compare(x.BOMRef, y.BOMRef) })
	slices.SortFunc(b.dependencies, func(x, y cyclonedx.Dependency) int { return strings.Compare(x.Ref, y.Ref) })

	bom := cyclonedx.NewBOM()
	bom.SerialNumber = serial(digest)
	bom.Metadata = &cyclonedx.Metadata{
		Timestamp: created.Format(time.RFC3339),
		Tools:     &cyclonedx.ToolsChoice{Components: &[]cyclonedx.Component{{Type: cyclonedx.ComponentTypeApplication, Name: "ffpod images/release", Version: version}}},
		Component: &cyclonedx.Component{BOMRef: root, Type: cyclonedx.ComponentTypeContainer, Name: fullHome + i.name, Version: version, PackageURL: root,
			Hashes: &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: digest.Hex}}},
	}
	bom.Components, bom.Dependencies = &b.components, &b.dependencies
	return bom
}

// serial is the UUID (version 8, of content) of the document about an image.
func serial(digest v1.Hash) string {
	sum := sha256.Sum256([]byte("ffpod CycloneDX of " + digest.String()))
	u := sum[:16]
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

type builder struct {
	components   []cyclonedx.Component
	dependencies []cyclonedx.Dependency
	seen         map[string]bool
}

func (b *builder) add(c cyclonedx.Component) (ref string) {
	if !b.seen[c.BOMRef] {
		b.seen[c.BOMRef] = true
		b.components = append(b.components, c)
	}
	return c.BOMRef
}

func (b *builder) depends(ref string, on []string) {
	slices.Sort(on)
	on = slices.Compact(on)
	b.dependencies = append(b.dependencies, cyclonedx.Dependency{Ref: ref, Dependencies: &on})
}

// program adds one of Go's with the modules that are linked into it, the library
// of the Go release among them.
func (b *builder) program(goarch, name, version string, p program) string {
	sum := sha256.Sum256(p.body)
	ref := b.add(cyclonedx.Component{BOMRef: "file:/" + name, Type: cyclonedx.ComponentTypeApplication, Name: path.Base(name), Version: version,
		Hashes:     &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Properties: &[]cyclonedx.Property{{Name: "ffpod:path", Value: "/" + name}, {Name: "ffpod:platform", Value: "linux/" + goarch}}})
	on := []string{b.module(p.info.Main.Path, version), b.module("stdlib", strings.TrimPrefix(p.info.GoVersion, "go"))}
	for _, m := range p.info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		on = append(on, b.module(m.Path, m.Version))
	}
	b.depends(ref, on)
	return ref
}

func (b *builder) module(name, version string) string {
	namespace, base := path.Split(name)
	purl := packageurl.NewPackageURL(packageurl.TypeGolang, strings.TrimSuffix(namespace, "/"), base, version, nil, "").ToString()
	return b.add(cyclonedx.Component{BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: name, Version: version, PackageURL: purl})
}

func (b *builder) deb(d deb, distribution, id string) string {
	qualifiers := map[string]string{"arch": d.architecture, "distro": id}
	if d.source != "" { // advisories are by source package
		qualifiers["upstream"] = d.source
	}
	purl := packageurl.NewPackageURL(packageurl.TypeDebian, distribution, d.name, d.version, packageurl.QualifiersFromMap(qualifiers), "").ToString()
	c := cyclonedx.Component{BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: d.name, Version: d.version, PackageURL: purl, Publisher: d.maintainer}
	if d.homepage != "" {
		c.ExternalReferences = &[]cyclonedx.ExternalReference{{Type: cyclonedx.ERTypeWebsite, URL: d.homepage}}
	}
	return b.add(c)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
