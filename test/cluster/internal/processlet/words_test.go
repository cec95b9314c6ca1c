package processlet

import (
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRewriteAddresses(t *testing.T) {
	wire := netip.MustParseAddr("127.9.128.1")
	tests := map[string]struct{ reason, word, want string }{
		"FlagLoopback":   {"the app's address of the sidecar", "--http-address=127.0.0.1:4040", "--http-address=127.9.128.1:4040"},
		"FlagAnyAddress": {"a listen address of all interfaces", "--health-address=:4041", "--health-address=127.9.128.1:4041"},
		"WordAnyAddress": {"the value of a flag that is a word of its own", ":4041", "127.9.128.1:4041"},
		"ZeroAddress":    {"the other way to say all interfaces", "--listen=0.0.0.0:80", "--listen=127.9.128.1:80"},
		"URL":            {"the environment's ELECTOR_URL", "http://127.0.0.1:4040", "http://127.9.128.1:4040"},
		"Localhost":      {"loopback by name", "curl http://localhost:4040/leader", "curl http://127.9.128.1:4040/leader"},
		"Twice":          {"every occurrence counts", "127.0.0.1:1,localhost:2", "127.9.128.1:1,127.9.128.1:2"},
		"IPv6":           {"loopback of the other family", "http://[::1]:80", "http://127.9.128.1:80"},
		"Script":         {"a colon with a number in a script is no address", "echo a:80; : 80", "echo a:80; : 80"},
		"OtherName":      {"the end of a longer name is not localhost", "http://mylocalhost:80", "http://mylocalhost:80"},
		"OtherAddress":   {"the end of a longer address is not loopback", "1127.0.0.1:80", "1127.0.0.1:80"},
		"NoPort":         {"an address without a port stays", "--host=127.0.0.1", "--host=127.0.0.1"},
		"Image":          {"a tag is no port", "ghcr.io/x/y:v1", "ghcr.io/x/y:v1"},
		"PathLike":       {"a list of paths is no address", ":/usr/bin", ":/usr/bin"},
		"Assignment":     {"only a flag has a value after =", "a=:80", "a=:80"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := rewriteAddresses(tc.word, wire); got != tc.want {
				t.Errorf("%s: got %q, want %q", tc.reason, got, tc.want)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	values := map[string]string{"NAME": "web-0", "EMPTY": ""}
	tests := map[string]struct{ reason, in, want string }{
		"Known":      {"a defined name", "is $(NAME)!", "is web-0!"},
		"Empty":      {"a name defined as nothing", "[$(EMPTY)]", "[]"},
		"Unknown":    {"an undefined name stays", "$(OTHER)", "$(OTHER)"},
		"Escaped":    {"$$ protects", "$$(NAME)", "$(NAME)"},
		"Shell":      {"shell's own variables stay", "$NAME ${NAME}", "$NAME ${NAME}"},
		"Unclosed":   {"no closing parenthesis", "$(NAME", "$(NAME"},
		"DollarLast": {"nothing follows", "cost: 5$", "cost: 5$"},
		"Adjacent":   {"one after the other", "$(NAME)$(NAME)", "web-0web-0"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := expand(tc.in, values); got != tc.want {
				t.Errorf("%s: got %q, want %q", tc.reason, got, tc.want)
			}
		})
	}
}

func TestResourceField(t *testing.T) {
	c := &v1.Container{Name: "app", Resources: v1.ResourceRequirements{
		Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("250m"), v1.ResourceMemory: resource.MustParse("16Mi")},
		Limits:   v1.ResourceList{v1.ResourceMemory: resource.MustParse("32Mi")},
	}}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1.PodSpec{Containers: []v1.Container{*c}}}
	tests := map[string]struct {
		reason string
		ref    v1.ResourceFieldSelector
		want   string
	}{
		"CPURoundsUp": {"whole cores by default", v1.ResourceFieldSelector{Resource: "requests.cpu"}, "1"},
		"CPUMilli":    {"by divisor", v1.ResourceFieldSelector{Resource: "requests.cpu", Divisor: resource.MustParse("1m")}, "250"},
		"Memory":      {"the limit, not the request", v1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}, "32"},
		"ByName":      {"another container's", v1.ResourceFieldSelector{ContainerName: "app", Resource: "requests.memory"}, "16777216"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			container := c
			if tc.ref.ContainerName != "" {
				container = &v1.Container{Name: "other"}
			}
			if got, err := resourceField(pod, container, &tc.ref); err != nil || got != tc.want {
				t.Errorf("%s: got %q, error %v, want %q", tc.reason, got, err, tc.want)
			}
		})
	}
}

func TestImageName(t *testing.T) {
	l := &Processlet{cfg: Config{Images: map[string]Image{"elector": {Binary: "/bin/elector"}}}}
	for reference, want := range map[string]bool{
		"elector":                             true,
		"ghcr.io/elector-io/elector:v1":       true,
		"localhost:5000/elector@sha256:abcde": true,
		"localhost:5000/x/elector:v1@sha256:": true,
		"ghcr.io/elector-io/elector-webhook":  false,
		"ghcr.io/elector/busybox":             false,
	} {
		if _, got := l.image(reference); got != want {
			t.Errorf("image %s is elector's: %t, want %t", reference, got, want)
		}
	}
}
