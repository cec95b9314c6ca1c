// Package entrypoint finds out what an image runs when nobody says what to run: its
// ENTRYPOINT and its CMD. It asks the image's registry as the user, with the
// credentials of `docker login`, or reads an archive of `docker save`. It runs
// nothing, and fetches no layers.
package entrypoint

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// ParsePlatform reads OS/ARCH[/VARIANT].
func ParsePlatform(s string) (v1.Platform, error) {
	p, err := v1.ParsePlatform(s)
	if err != nil || p.OS == "" || p.Architecture == "" {
		return v1.Platform{}, fmt.Errorf("the platform %q is not allowed: use one such as linux/amd64 or linux/arm64", s)
	}
	return *p, nil
}

// OfReference asks the image's registry.
func OfReference(ctx context.Context, reference string, platform v1.Platform) ([]string, error) {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%q is no image: use a reference such as redis:8 or registry.example/team/app@sha256:…", reference)
	}
	image, err := remote.Image(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithPlatform(platform))
	if err != nil {
		return nil, fmt.Errorf("asking the registry: %w", err)
	}
	return of(image)
}

// OfArchive reads a file that `docker save` wrote. The reference says which image of
// it is meant; it may be empty if there is only one.
func OfArchive(path, reference string) ([]string, error) {
	var tag *name.Tag
	if reference != "" {
		t, err := name.NewTag(reference)
		if err != nil {
			return nil, fmt.Errorf("%q is no tag: use one that the archive has, such as redis:8", reference)
		}
		tag = &t
	}
	image, err := tarball.ImageFromPath(path, tag)
	if err != nil {
		return nil, fmt.Errorf("reading the archive: %w", err)
	}
	return of(image)
}

// maxConfig is the size of an image's configuration. Most have a few kilobytes, and
// who runs a registry chooses what it says.
const maxConfig = 4 << 20

func of(image v1.Image) ([]string, error) {
	manifest, err := image.Manifest()
	if err != nil {
		return nil, fmt.Errorf("reading the image's manifest: %w", err)
	}
	if manifest.Config.Size > maxConfig {
		return nil, fmt.Errorf("the image's configuration has %d bytes, of which at most %d are read", manifest.Config.Size, maxConfig)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the image's configuration: %w", err)
	}
	if config.OS == "windows" {
		return nil, errors.New("the image is for Windows, where there is no elector")
	}
	command := slices.Concat(config.Config.Entrypoint, config.Config.Cmd)
	if len(command) == 0 {
		return nil, errors.New("the image has neither ENTRYPOINT nor CMD, so the pod has to say what to run: give its container a command")
	}
	return command, nil
}
