package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// push brings a release's images and SBOMs to a registry, under their tags and the
// same digests. It reads the credentials that docker login wrote. A tag that is
// there and names something else stays: releases do not change.
func push(ctx context.Context, dir, registry string, stdout io.Writer) error {
	if err := check(dir, io.Discard); err != nil {
		return err
	}
	root, manifest, err := openLayout(dir)
	if err != nil {
		return err
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithUserAgent("ffpod")}
	pusher, err := remote.NewPusher(options...)
	if err != nil {
		return err
	}
	prefix := strings.TrimSuffix(registry, "/") + "/"
	for _, d := range manifest.Manifests {
		full, ok := d.Annotations[referenceName]
		if !ok {
			continue
		}
		ref, err := name.NewTag(prefix + strings.TrimPrefix(full, fullHome))
		if err != nil {
			return fmt.Errorf("registry %s: %w", registry, err)
		}
		if err := free(ref, d.Digest, options); err != nil {
			return err
		}
		index, err := root.ImageIndex(d.Digest)
		if err != nil {
			return fmt.Errorf("OCI layout: %w", err)
		}
		if err := pusher.Push(ctx, ref, index); err != nil {
			return fmt.Errorf("push %s: %w", ref, err)
		}
		if err := pushReferrers(ctx, pusher, ref.Context(), root, manifest, index); err != nil {
			return err
		}
		there, err := remote.Head(ref, options...)
		if err != nil {
			return fmt.Errorf("read back %s: %w", ref, err)
		}
		if there.Digest != d.Digest {
			return fmt.Errorf("read back %s: the registry has %s, pushed was %s; it rewrites manifests, so digests in the manifests will not be found", ref, there.Digest, d.Digest)
		}
		fmt.Fprintln(stdout, ref.Context().Digest(d.Digest.String()))
	}
	return nil
}

// free refuses a tag that is another's.
func free(ref name.Tag, digest v1.Hash, options []remote.Option) error {
	there, err := remote.Head(ref, options...)
	var answer *transport.Error
	switch {
	case err == nil && there.Digest != digest:
		return fmt.Errorf("push %s: it is %s there, and would become %s; a release does not change: take the next number", ref, there.Digest, digest)
	case err == nil, errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return nil
	}
	return fmt.Errorf("look for %s: %w", ref, err)
}

// pushReferrers pushes what is about the index's images: the SBOMs.
func pushReferrers(ctx context.Context, pusher *remote.Pusher, to name.Repository, root v1.ImageIndex, all *v1.IndexManifest, index v1.ImageIndex) error {
	inner, err := index.IndexManifest()
	if err != nil {
		return err
	}
	about := map[v1.Hash]bool{}
	for _, m := range inner.Manifests {
		about[m.Digest] = true
	}
	for _, d := range all.Manifests {
		if d.MediaType != types.OCIManifestSchema1 {
			continue
		}
		img, err := root.Image(d.Digest)
		if err != nil {
			return err
		}
		manifest, err := img.Manifest()
		if err != nil {
			return err
		}
		if manifest.Subject == nil || !about[manifest.Subject.Digest] {
			continue
		}
		ref := to.Digest(d.Digest.String())
		if err := pusher.Push(ctx, ref, img); err != nil {
			return fmt.Errorf("push SBOM %s: %w", ref, err)
		}
	}
	return nil
}
