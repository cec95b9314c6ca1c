package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func example() image {
	return image{
		name:    "registry.example.com:5000/elector:v1",
		created: time.Unix(1_700_000_000, 0).UTC(),
		labels:  map[string]string{"org.opencontainers.image.version": "v1", "org.opencontainers.image.licenses": "Apache-2.0"},
		platforms: []programs{
			{"amd64", []program{{"elector", []byte("one program")}, {"gate", []byte("one beside it")}}},
			{"arm64", []program{{"elector", []byte("another program")}, {"gate", []byte("another beside it")}}},
		},
	}
}

// contents reads a tar archive.
func contents(t *testing.T, r io.Reader) (files map[string][]byte, headers map[string]*tar.Header) {
	t.Helper()
	files, headers = map[string][]byte{}, map[string]*tar.Header{}
	for in := tar.NewReader(r); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		headers[header.Name] = header
		if files[header.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
}

func decode[T any](t *testing.T, content []byte) T {
	t.Helper()
	var into T
	if err := json.Unmarshal(content, &into); err != nil {
		t.Fatalf("%v in %s", err, content)
	}
	return into
}

// resolve follows a descriptor, as whoever pulls the image does: what it finds must have the size and the digest that it was told.
func resolve(t *testing.T, files map[string][]byte, d descriptor) []byte {
	t.Helper()
	content, ok := files["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
	if !ok || len(content) != d.Size || digest(content) != d.Digest {
		t.Fatalf("%+v leads to %d bytes with digest %s, there: %t", d, len(content), digest(content), ok)
	}
	return content
}

// TestLayout walks from the index to the program, for each architecture.
func TestLayout(t *testing.T) {
	t.Parallel()
	img := example()
	b, err := build(img)
	if err != nil {
		t.Fatal(err)
	}
	top := decode[index](t, b.files["index.json"]).Manifests[0]
	if top.Digest != b.digest || top.Annotations["io.containerd.image.name"] != img.name || top.Annotations["org.opencontainers.image.ref.name"] != "v1" {
		t.Errorf("the layout names %+v, want %s and digest %s", top, img.name, b.digest)
	}
	list := decode[index](t, resolve(t, b.files, top))
	if len(list.Manifests) != len(img.platforms) {
		t.Fatalf("%d manifests, want %d", len(list.Manifests), len(img.platforms))
	}
	for i, p := range img.platforms {
		m := decode[manifest](t, resolve(t, b.files, list.Manifests[i]))
		c := decode[config](t, resolve(t, b.files, m.Config))
		if c.platform != (platform{p.arch, "linux"}) || *list.Manifests[i].Platform != c.platform {
			t.Errorf("%s: the manifest is for %v, the config for %v", p.arch, *list.Manifests[i].Platform, c.platform)
		}
		if c.Config.User != "65532:65532" || !cmp.Equal(c.Config.Entrypoint, []string{"/elector"}) || !c.Created.Equal(img.created) {
			t.Errorf("%s: user %s, entrypoint %q, created %s", p.arch, c.Config.User, c.Config.Entrypoint, c.Created)
		}
		if diff := cmp.Diff(img.labels, c.Config.Labels); diff != "" {
			t.Errorf("%s: labels (-want +got):\n%s", p.arch, diff)
		}
		packed, err := gzip.NewReader(bytes.NewReader(resolve(t, b.files, m.Layers[0])))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(packed)
		if err != nil {
			t.Fatal(err)
		}
		if got := digest(plain); got != c.RootFS.DiffIDs[0] {
			t.Errorf("%s: the layer's content is %s, the config says %s", p.arch, got, c.RootFS.DiffIDs[0])
		}
		files, headers := contents(t, bytes.NewReader(plain))
		if diff := cmp.Diff(map[string][]byte{"elector": p.programs[0].content, "gate": p.programs[1].content}, files); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", p.arch, diff)
		}
		if h := headers["gate"]; h.Mode != 0o755 || h.Uid != 0 || !h.ModTime.Equal(img.created) {
			t.Errorf("%s: mode %o, owner %d, time %s", p.arch, h.Mode, h.Uid, h.ModTime)
		}
	}
}

// TestDockerLoads: what docker load is told are files of the same layout, those of the first architecture.
func TestDockerLoads(t *testing.T) {
	t.Parallel()
	img := example()
	b, err := build(img)
	if err != nil {
		t.Fatal(err)
	}
	entries := decode[[]dockerImage](t, b.files["manifest.json"])
	if len(entries) != 1 || !cmp.Equal(entries[0].RepoTags, []string{img.name}) {
		t.Fatalf("manifest.json has %+v, want one image %s", entries, img.name)
	}
	if got := decode[config](t, b.files[entries[0].Config]).Architecture; got != "amd64" {
		t.Errorf("the config is for %s", got)
	}
	if _, ok := b.files[entries[0].Layers[0]]; !ok {
		t.Errorf("there is no file %s", entries[0].Layers[0])
	}
}

// TestSameBytes: nothing of when and where it was made is in the archive.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	var archives [2][]byte
	for i := range archives {
		dir := filepath.Join(t.TempDir(), strings.Repeat("deeper/", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(i)*1e9, 0)
		if err := errors.Join(os.WriteFile(filepath.Join(dir, "elector"), []byte("program"), os.FileMode(0o700+i)), os.Chtimes(filepath.Join(dir, "elector"), at, at)); err != nil {
			t.Fatal(err)
		}
		args := []string{"-o", filepath.Join(dir, "out", "elector.tar"), "-name", "example.com/elector:v1", "-created", "1700000000", "-label", "b=1", "-label", "a=2", "amd64=" + filepath.Join(dir, "elector")}
		if err := run(args, io.Discard); err != nil {
			t.Fatal(err)
		}
		var err error
		if archives[i], err = os.ReadFile(filepath.Join(dir, "out", "elector.tar")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the same program makes two different archives")
	}
	files, headers := contents(t, bytes.NewReader(archives[0]))
	for name, content := range files {
		if sum, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && digest(content) != "sha256:"+sum {
			t.Errorf("%s has another digest", name)
		}
		if headers[name].ModTime.Unix() != 0 {
			t.Errorf("%s carries the time %s", name, headers[name].ModTime)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "elector")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.tar")
	tests := map[string]struct {
		reason string
		args   []string
		want   string
	}{
		"NoTag":     {"a port is no tag", []string{"-o", out, "-name", "localhost:5000/elector", "amd64=" + program}, "NAME:TAG"},
		"NoProgram": {"an image of nothing", []string{"-o", out, "-name", "elector:v1"}, "ARCHITECTURE=PATH"},
		"NoArch":    {"for which machine", []string{"-o", out, "-name", "elector:v1", program}, "is not ARCHITECTURE=PATH"},
		"Twice":     {"one of them would be lost", []string{"-o", out, "-name", "elector:v1", "amd64=" + program, "amd64=" + program}, "amd64 is named twice"},
		"Absent":    {"not built yet", []string{"-o", out, "-name", "elector:v1", "amd64=" + program + "-absent"}, "no such file"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := run(tc.args, io.Discard); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %v, want %q in it", tc.reason, err, tc.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Errorf("%s: an archive appeared", tc.reason)
			}
		})
	}
}
