package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// user is the UID and GID that the program runs as: a number, so that runAsNonRoot can be checked without a passwd file, and one that
// distributions give to nobody.
const user = "65532:65532"

// Media types of the OCI image specification, https://github.com/opencontainers/image-spec.
const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// image is what is to be built.
type image struct {
	// name is the reference with its tag.
	name string
	// created is the time of everything in the image.
	created time.Time
	labels  map[string]string
	// platforms has what is in the image, for each architecture.
	platforms []programs
}

type programs struct {
	// arch is an architecture as GOARCH names it, which is how the specification names it.
	arch string
	// programs are in the image's root directory. The first is the entrypoint.
	programs []program
}

type program struct {
	name    string
	content []byte
}

// built is an image layout.
type built struct {
	// files has the layout's files by name.
	files map[string][]byte
	// digest is that of the image for all architectures: what `name@digest` pulls.
	digest string
	// manifests and sizes have each architecture's digest, and the number of bytes a node pulls.
	manifests map[string]string
	sizes     map[string]int
}

type (
	platform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	}
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Platform    *platform         `json:"platform,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	index struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
	manifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}
	config struct {
		platform
		Created time.Time `json:"created"`
		Config  struct {
			User       string            `json:"User"`
			Entrypoint []string          `json:"Entrypoint"`
			WorkingDir string            `json:"WorkingDir"`
			Labels     map[string]string `json:"Labels,omitempty"`
		} `json:"config"`
		RootFS struct {
			Type    string   `json:"type"`
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
		History []history `json:"history"`
	}
	history struct {
		Created   time.Time `json:"created"`
		CreatedBy string    `json:"created_by"`
	}
	// dockerImage is an entry of manifest.json, by which docker load finds its image in the layout.
	dockerImage struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
)

func build(img image) (built, error) {
	b := built{files: map[string][]byte{}, manifests: map[string]string{}, sizes: map[string]int{}}
	list := index{SchemaVersion: 2, MediaType: indexType}
	var docker []dockerImage
	for _, p := range img.platforms {
		if _, twice := b.manifests[p.arch]; twice {
			return built{}, fmt.Errorf("architecture %s is named twice", p.arch)
		}
		m, diffID, err := b.layer(p, img.created)
		if err != nil {
			return built{}, err
		}
		c := config{platform: platform{p.arch, "linux"}, Created: img.created}
		c.Config.User, c.Config.Entrypoint, c.Config.WorkingDir, c.Config.Labels = user, []string{"/" + p.programs[0].name}, "/", img.labels
		c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{diffID}
		c.History = []history{{img.created, p.instruction()}}
		if m.Config, err = b.json(configType, c); err != nil {
			return built{}, err
		}
		desc, err := b.json(manifestType, m)
		if err != nil {
			return built{}, err
		}
		b.manifests[p.arch] = desc.Digest
		b.sizes[p.arch] = desc.Size + m.Config.Size + m.Layers[0].Size
		desc.Platform = &c.platform
		list.Manifests = append(list.Manifests, desc)
		if docker == nil {
			docker = []dockerImage{{blob(m.Config.Digest), []string{img.name}, []string{blob(m.Layers[0].Digest)}}}
		}
	}
	top, err := b.json(indexType, list)
	if err != nil {
		return built{}, err
	}
	b.digest = top.Digest
	top.Annotations = map[string]string{
		"io.containerd.image.name":          img.name,
		"org.opencontainers.image.ref.name": img.name[strings.LastIndex(img.name, ":")+1:],
	}
	for name, content := range map[string]any{
		"oci-layout":    map[string]string{"imageLayoutVersion": "1.0.0"},
		"index.json":    index{SchemaVersion: 2, MediaType: indexType, Manifests: []descriptor{top}},
		"manifest.json": docker,
	} {
		if b.files[name], err = json.Marshal(content); err != nil {
			return built{}, fmt.Errorf("write %s: %w", name, err)
		}
	}
	return b, nil
}

// instruction is what a Dockerfile would say.
func (p programs) instruction() string {
	words := []string{"COPY"}
	for _, one := range p.programs {
		words = append(words, one.name)
	}
	return strings.Join(append(words, "/"), " ")
}

// layer adds the image's one layer, and returns a manifest with it and the digest of what is in it.
func (b built) layer(p programs, created time.Time) (m manifest, diffID string, err error) {
	var plain, packed bytes.Buffer
	files := tar.NewWriter(&plain)
	for _, one := range p.programs {
		if err := writeFile(files, one.name, 0o755, created, one.content); err != nil {
			return m, "", err
		}
	}
	if err := files.Close(); err != nil {
		return m, "", fmt.Errorf("end the layer: %w", err)
	}
	diffID = digest(plain.Bytes())
	zip, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return m, "", fmt.Errorf("compress the layer: %w", err)
	}
	if _, err := io.Copy(zip, &plain); err != nil {
		return m, "", fmt.Errorf("compress the layer: %w", err)
	}
	if err := zip.Close(); err != nil {
		return m, "", fmt.Errorf("compress the layer: %w", err)
	}
	return manifest{SchemaVersion: 2, MediaType: manifestType, Layers: []descriptor{b.blob(layerType, packed.Bytes())}}, diffID, nil
}

func (b built) json(mediaType string, content any) (descriptor, error) {
	data, err := json.Marshal(content)
	if err != nil {
		return descriptor{}, fmt.Errorf("write %s: %w", mediaType, err)
	}
	return b.blob(mediaType, data), nil
}

func (b built) blob(mediaType string, content []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digest(content), Size: len(content)}
	b.files[blob(d.Digest)] = content
	return d
}

// blob is the name of the file with that content.
func blob(digest string) string {
	return "blobs/" + strings.Replace(digest, ":", "/", 1)
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// archive writes files as a tar archive, without a trace of when and where that was.
func archive(out io.Writer, files map[string][]byte) error {
	w := tar.NewWriter(out)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := writeFile(w, name, 0o644, time.Unix(0, 0), files[name]); err != nil {
			return err
		}
	}
	return w.Close()
}

func writeFile(w *tar.Writer, name string, mode int64, at time.Time, content []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: at, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(header); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	if _, err := w.Write(content); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	return nil
}
