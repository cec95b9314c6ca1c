package entrypoint

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// image has an entrypoint, a command and a platform.
func image(t *testing.T, platform v1.Platform, entrypoint []string, cmd ...string) v1.Image {
	t.Helper()
	out, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture,
		Config: v1.Config{Entrypoint: entrypoint, Cmd: cmd},
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var (
	amd64   = v1.Platform{OS: "linux", Architecture: "amd64"}
	arm64   = v1.Platform{OS: "linux", Architecture: "arm64"}
	windows = v1.Platform{OS: "windows", Architecture: "amd64"}
)

// serve runs a registry that wants a password, which is in the user's docker configuration.
func serve(t *testing.T) (host string) {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "alice" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host = strings.TrimPrefix(server.URL, "http://")
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	config := `{"auths":{"` + host + `":{"auth":"YWxpY2U6c2VjcmV0"}}}` // alice:secret
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return host
}

func reference(t *testing.T, s string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestOfReference(t *testing.T) {
	host := serve(t)
	login := remote.WithAuthFromKeychain(authn.DefaultKeychain)
	for tag, img := range map[string]v1.Image{
		"both":    image(t, amd64, []string{"/docker-entrypoint.sh"}, "redis-server", "--save", ""),
		"cmd":     image(t, amd64, nil, "/bin/sh", "-c", "exec app $X"),
		"none":    image(t, amd64, nil),
		"windows": image(t, windows, []string{`C:\app.exe`}),
		"huge":    image(t, amd64, []string{strings.Repeat("x", maxConfig)}),
	} {
		if err := remote.Write(reference(t, host+"/app:"+tag), img, login); err != nil {
			t.Fatal(err)
		}
	}
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: image(t, arm64, []string{"/arm"}), Descriptor: v1.Descriptor{Platform: &arm64}},
		mutate.IndexAddendum{Add: image(t, amd64, []string{"/amd"}), Descriptor: v1.Descriptor{Platform: &amd64}})
	if err := remote.WriteIndex(reference(t, host+"/app:several"), index, login); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		reason, image string
		platform      v1.Platform
		want          []string
		err           string
	}{
		"both":             {"the CMD is what the ENTRYPOINT is given", host + "/app:both", amd64, []string{"/docker-entrypoint.sh", "redis-server", "--save", ""}, ""},
		"command":          {"the CMD alone is run", host + "/app:cmd", amd64, []string{"/bin/sh", "-c", "exec app $X"}, ""},
		"neither":          {"there is nothing to run", host + "/app:none", amd64, nil, "neither ENTRYPOINT nor CMD"},
		"Windows":          {"elector does not run there", host + "/app:windows", amd64, nil, "for Windows"},
		"platform":         {"each may run something else", host + "/app:several", arm64, []string{"/arm"}, ""},
		"default":          {"each may run something else", host + "/app:several", amd64, []string{"/amd"}, ""},
		"missing platform": {"there is no such image", host + "/app:several", v1.Platform{OS: "linux", Architecture: "s390x"}, nil, "asking the registry"},
		"unknown tag":      {"there is no such image", host + "/app:gone", amd64, nil, "asking the registry"},
		"no reference":     {"there cannot be such an image", "A B", amd64, nil, `"A B" is no image`},
		"huge":             {"who runs a registry chooses what it says", host + "/app:huge", amd64, nil, "of which at most"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := OfReference(t.Context(), tc.image, tc.platform)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Fatalf("%s: %v, want %q", tc.reason, err, tc.err)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%s: %q, want %q", tc.reason, got, tc.want)
			}
		})
	}
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	if _, err := OfReference(t.Context(), host+"/app:both", amd64); err == nil {
		t.Error("the registry answered without a password")
	}
}

func TestOfArchive(t *testing.T) {
	file := filepath.Join(t.TempDir(), "app.tar")
	one, err := name.NewTag("app:v1")
	if err != nil {
		t.Fatal(err)
	}
	two, err := name.NewTag("app:v2")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.MultiWriteToFile(file, map[name.Tag]v1.Image{one: image(t, amd64, []string{"/one"}), two: image(t, amd64, []string{"/two"})}); err != nil {
		t.Fatal(err)
	}
	got, err := OfArchive(file, "app:v2")
	if err != nil || !slices.Equal(got, []string{"/two"}) {
		t.Errorf("got %q, %v", got, err)
	}
	for name, reference := range map[string]string{"another": "app:v3", "none of two": "", "garbage": "A B"} {
		if got, err := OfArchive(file, reference); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
	if _, err := OfArchive(filepath.Join(t.TempDir(), "none.tar"), ""); err == nil {
		t.Error("there is no such file")
	}
}

func TestParsePlatform(t *testing.T) {
	if got, err := ParsePlatform("linux/arm/v7"); err != nil || got.Variant != "v7" {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "linux", "/", "a/b/c/d", "linux/"} {
		if _, err := ParsePlatform(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
