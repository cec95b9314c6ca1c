//go:build integration

package integration

import (
	"encoding/json"
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/elector-io/elector/inject"
)

var (
	fuzzed   = flag.Int("fuzzed", 200, "how many pods that are valid without the sidecar TestFuzzedPods makes up")
	fuzzSeed = flag.Uint64("fuzz-seed", 1, "what TestFuzzedPods makes them up from")
)

// A pod that the API server takes without the sidecar it takes with it, or the webhook has refused it with a sentence. The pods are
// the templates after random changes.
func TestFuzzedPods(t *testing.T) {
	t.Parallel()
	all := templates(t)
	s := newSpace(t)
	s.prepare(all)
	pods := dynamicClient(t).Resource(podsResource).Namespace(s.name)
	try := func(pod object) (object, error) {
		created, err := pods.Create(t.Context(), &unstructured.Unstructured{Object: pod}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return nil, err
		}
		return created.Object, nil
	}
	var mu sync.Mutex
	var tried, valid, accepted int
	next := func() (n int, more bool) {
		mu.Lock()
		defer mu.Unlock()
		tried++
		return tried, valid < *fuzzed && tried < 20**fuzzed
	}
	count := func(n *int) {
		mu.Lock()
		defer mu.Unlock()
		*n++
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n, more := next(); more; n, more = next() {
				f := fuzzer{rand.New(rand.NewPCG(*fuzzSeed, uint64(n))), all}
				pod := f.pod()
				plain, err := try(clone(pod))
				if err != nil {
					continue // whatever it is, it is not the sidecar's fault
				}
				count(&valid)
				f.ask(pod)
				elected, err := try(clone(pod))
				if err != nil {
					if sentence, denied := strings.CutPrefix(err.Error(), `admission webhook "pods.elector.io" denied the request: elector.io/`); !denied || strings.Contains(sentence, "\n") {
						raw, _ := json.Marshal(pod)
						t.Errorf("pod %d of seed %d is valid without the sidecar, and with it: %v\n%s", n, *fuzzSeed, err, raw)
					}
					continue
				}
				count(&accepted)
				checkClass(t, plain, elected)
				for _, stored := range []object{plain, elected} {
					withoutSums(stored, pod)
				}
				ungate(t, elected)
				for _, annotations := range []object{at(elected, "metadata", "annotations"), at(plain, "metadata", "annotations")} {
					maps.DeleteFunc(annotations, func(key string, _ any) bool { return strings.HasPrefix(key, inject.Prefix) })
				}
				drop(at(plain, "metadata"), "annotations")
				drop(at(elected, "metadata"), "annotations")
				if diff := cmp.Diff(ofAny(t, plain), ofAny(t, without(elected, plain))); diff != "" {
					t.Errorf("pod %d of seed %d differs in more than the injected parts (-without +with):\n%s", n, *fuzzSeed, diff)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("of %d pods %d are valid, of these %d with the sidecar", tried, valid, accepted)
	if valid < *fuzzed || accepted < valid/3 {
		t.Error("that is too few to show anything")
	}
}

// ungate takes the gate out of a stored pod's containers, as kubectl elector uninject does.
func ungate(t *testing.T, pod object) {
	t.Helper()
	var typed corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(clone(pod), &typed); err != nil {
		t.Error(err)
		return
	}
	undone, err := inject.Undo(&typed)
	if err != nil {
		t.Error(err)
		return
	}
	back, err := runtime.DefaultUnstructuredConverter.ToUnstructured(undone)
	if err != nil {
		t.Error(err)
		return
	}
	removeNamed(at(pod, "spec"), "volumes", inject.VolumeGate)
	was := elements(at(back, "spec"), "containers")
	for i, c := range elements(at(pod, "spec"), "containers") {
		removeNamed(c, "volumeMounts", inject.VolumeGate)
		for _, key := range []string{"command", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"} {
			delete(c, key)
			if value, had := was[i][key]; had {
				c[key] = value
			}
		}
	}
}

// withoutSums takes out of a stored pod the requests at pod level that the API server has added up from those of the containers, the
// sidecar's among them. It does so for what the pod says nothing about at its level, if it says something there at all.
func withoutSums(stored, given object) {
	resources, ok := at(stored, "spec")["resources"].(object)
	if !ok {
		return
	}
	said := at(given, "spec", "resources")
	maps.DeleteFunc(at(resources, "requests"), func(name string, _ any) bool {
		_, requested := at(said, "requests")[name]
		_, limited := at(said, "limits")[name]
		return !requested && !limited
	})
}

// fuzzer makes up pods.
type fuzzer struct {
	*rand.Rand
	templates map[string]object
}

func pick[T any](f fuzzer, all ...T) T { return all[f.IntN(len(all))] }

func (f fuzzer) template() object {
	return clone(f.templates[pick(f, slices.Sorted(maps.Keys(f.templates))...)])
}

// pod is a template with a few changes, many of which get in the sidecar's way.
func (f fuzzer) pod() object {
	pod := f.template()
	delete(at(pod, "metadata"), "finalizers")
	for range 1 + f.IntN(4) {
		f.change(pod)
	}
	return pod
}

func (f fuzzer) change(pod object) {
	spec := at(pod, "spec")
	list := pick(f, "containers", "containers", "initContainers")
	containers := elements(spec, list)
	if len(containers) == 0 {
		list, containers = "containers", elements(spec, "containers")
	}
	c := pick(f, containers...)
	quantities := func(resource string) any {
		if resource == "cpu" {
			return pick[any](f, "1", "100m", int64(2), "0", "0.5")
		}
		return pick[any](f, "1Gi", "64Mi", "16Mi", int64(134217728), "0")
	}
	switch f.IntN(16) {
	case 0: // a part of another pod
		other := at(f.template(), "spec")
		if key := pick(f, slices.Sorted(maps.Keys(other))...); key != "containers" && key != "serviceAccountName" {
			spec[key] = other[key]
		}
	case 1: // less
		if key := pick(f, slices.Sorted(maps.Keys(spec))...); key != "containers" && key != "nodeSelector" {
			delete(spec, key)
		}
	case 2:
		delete(c, pick(f, slices.Sorted(maps.Keys(c))...))
	case 3, 4: // other resources, of all containers or of one
		resources := object{}
		for _, kind := range []string{"requests", "limits"} {
			for _, resource := range []string{"cpu", "memory"} {
				if f.IntN(3) > 0 {
					at(resources, kind)[resource] = quantities(resource)
				}
			}
		}
		if f.IntN(2) == 0 {
			c["resources"] = resources
			return
		}
		for _, list := range []string{"containers", "initContainers"} {
			for _, c := range elements(spec, list) {
				c["resources"] = clone(resources)
			}
		}
	case 5:
		resource := pick(f, "cpu", "memory")
		at(spec, "resources", pick(f, "requests", "limits"))[resource] = quantities(resource)
	case 6:
		spec[pick(f, "hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "automountServiceAccountToken", "enableServiceLinks")] = pick(f, true, false)
	case 7, 8: // ports, the sidecar's among them
		port := object{"containerPort": pick[int64](f, 4040, 4041, 1024, 5050, 65535), "protocol": pick(f, "TCP", "UDP", "SCTP")}
		if f.IntN(2) == 0 {
			port["hostPort"] = port["containerPort"]
		}
		if f.IntN(3) == 0 {
			port["name"] = pick(f, "elector-health", "elector-http", "x")
		}
		ports, _ := c["ports"].([]any)
		c["ports"] = append(ports, port)
	case 9: // variables
		env, _ := c["env"].([]any)
		c["env"] = append(env, object{"name": pick(f, "POD_NAME", "ELECTOR_URL", "ELECTOR_STATUS_DIR", "x"), "value": pick(f, "", "x", "/var/run/elector", "http://127.0.0.1:4040", "$(HOSTNAME)")})
	case 10, 11: // a mount where the sidecar's may be
		name := "fuzz" + strconv.Itoa(f.IntN(1000))
		volumes, _ := spec["volumes"].([]any)
		spec["volumes"] = append(volumes, object{"name": pick(f, name, name, name, "elector-status", "elector-token"), pick(f, "emptyDir", "projected"): object{}})
		mounts, _ := c["volumeMounts"].([]any)
		c["volumeMounts"] = append(mounts, object{"name": name, "mountPath": pick(f, "/var/run/elector", "/var/run", "/var/run/elector/below", "/", "/run/elector", "/var/run/secrets/kubernetes.io/serviceaccount", "var/run/elector/", "/data")})
	case 12:
		context := at(pick(f, spec, c), "securityContext")
		context[pick(f, "runAsUser", "runAsGroup")] = pick[int64](f, 0, 1, 65532)
		context["runAsNonRoot"] = pick(f, true, false)
	case 13: // more containers, one after the other
		more := clone(c)
		more["name"] = pick(f, "elector", "more", strings.Repeat("c", 63))
		delete(more, "ports")
		if list == "initContainers" {
			more["restartPolicy"] = "Always"
		}
		spec[list] = append(spec[list].([]any), more)
	case 14: // names, from which the lock gets its own
		meta := at(pod, "metadata")
		delete(meta, "name")
		meta[pick(f, "name", "generateName")] = pick(f, "a", "web-", "web-0", "a.b.c", strings.Repeat("n", 253), strings.Repeat("long-", 12))
	case 15:
		meta := at(pod, "metadata")
		version, kind, _ := strings.Cut(pick(f, "apps/v1 ReplicaSet", "apps/v1 StatefulSet", "batch/v1 Job", "example.com/v1 Thing"), " ")
		meta["ownerReferences"] = []any{object{"apiVersion": version, "kind": kind, "name": pick(f, "web-5d4f", "web", strings.Repeat("o", 200)), "uid": "1", "controller": true}}
		meta["labels"] = object{"pod-template-hash": "5d4f"}
	}
}

// ask annotates the pod: mostly with what may be, together or not.
func (f fuzzer) ask(pod object) {
	annotations := at(pod, "metadata", "annotations")
	annotations[inject.Prefix+"enabled"] = "true"
	keys := []string{inject.Prefix + "unknown"}
	for _, a := range inject.Annotations()[1:] { // the first is enabled
		keys = append(keys, a.Key)
	}
	for range f.IntN(4) {
		key := pick(f, keys...)
		values := fuzzedValues[strings.TrimPrefix(key, inject.Prefix)]
		if value := "\x00garbage"; f.IntN(20) == 0 || len(values) == 0 {
			annotations[key] = value
			continue
		}
		annotations[key] = pick(f, values...)
	}
}

// fuzzedValues are good values of annotations; one that has none here gets garbage.
var fuzzedValues = map[string][]string{
	"mode": {"lease", "leader-for-life"}, "lock": {"web", "a.b", strings.Repeat("l", 253)}, "lease-duration": {"15s", "1s", "24h"},
	"renew-deadline": {"10s", "9s", "100ms"}, "retry-period": {"2s", "100ms"}, "containers": {"app", "web", "web, app"},
	"status-dir": {"/var/run/elector", "/data", "/a/b/c/", "/var/run", "/tmp"}, "port": {"4040", "5050", "65535", "8080"}, "health-port": {"4041", "5051", "1024", "8080"},
	"handover-when": {"broken", "unready", "never"}, "unready-for": {"5s", "1h"},
	"gate": {"true", "true", "app", "web"}, "stop-grace": {"2s", "500ms", "30s"}, "command": {`{"app":["/entry.sh","$(A)"]}`, `{"web":["run"]}`},
	"image": {"elector", "registry.example:5000/a/b@sha256:0", strings.Repeat("i", 512)}, "log-level": {"0", "10"}, "cpu-request": {"1m", "1", "0.001"},
	"memory-request": {"16Mi", "64Mi", "1k"}, "memory-limit": {"16Mi", "64Mi", "1.5Gi", "999999999999Gi"},
}
