package object

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var podKind = metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}

func TestDecodeNull(t *testing.T) {
	for _, raw := range []string{"", " ", "null", " null\n"} {
		if _, err := Decode([]byte(raw), podKind, &corev1.Pod{}); err == nil {
			t.Errorf("%q is taken for a pod", raw)
		}
	}
}

// TestQuantitiesEverywhere wants an answer in time for any place of a quantity.
func TestQuantitiesEverywhere(t *testing.T) {
	for _, at := range []string{
		`{"spec":{"containers":[{"resources":{"requests":{"cpu":%s}}}]}}`,
		`{"spec":{"initContainers":[{"resources":{"limits":{"cpu":%s}}}]}}`,
		`{"spec":{"ephemeralContainers":[{"resources":{"limits":{"cpu":%s}}}]}}`,
		`{"spec":{"resources":{"limits":{"cpu":%s}}}}`,
		`{"spec":{"overhead":{"cpu":%s}}}`,
		`{"spec":{"volumes":[{"emptyDir":{"sizeLimit":%s}}]}}`,
		`{"spec":{"volumes":[{"ephemeral":{"volumeClaimTemplate":{"spec":{"resources":{"requests":{"storage":%s}}}}}}]}}`,
		`{"spec":{"containers":[{"env":[{"valueFrom":{"resourceFieldRef":{"divisor":%s}}}]}]}}`,
		`{"spec":{"volumes":[{"projected":{"sources":[{"downwardAPI":{"items":[{"resourceFieldRef":{"divisor":%s}}]}}]}}]}}`,
		`{"status":{"containerStatuses":[{"allocatedResources":{"cpu":%s}}]}}`,
		`{"status":{"containerStatuses":[{"resources":{"limits":{"cpu":%s}}}]}}`,
		`{"status":{"nodeAllocatableResourceClaimStatuses":[{"mapping":[{"name":"cpu","quantity":%s}]}]}}`,
		// A resource may have the name of a field in which anything is allowed.
		`{"spec":{"overhead":{"metadata":%s}}}`,
		// What is there twice is read twice.
		`{"spec":{"overhead":{"cpu":%s,"cpu":"1"}}}`,
		`{"spec":{"overhead":{"cpu":"1","cpu":%s}}}`,
		`{"spec":{"overhead":{"cpu":%s},"overhead":{}}}`,
		`{"spec":{"overhead":{"cpu":%s}},"spec":{}}`,
		`{"spec":{"overhead":{"cpu":%s},"overh\u0065ad":null}}`,
		`{"spec":{"overhead":{"cpu":%s}},"spec":{},"metadata":{"name":"\ud800"}}`,
	} {
		for _, quantity := range []string{`"1e-1000000000"`, `1e-1000000000`, `"1.123456789012345678901234567890e1000000000"`, `"1E-99999999999999999999"`, `" 1e-1000000000 "`} {
			raw := []byte(fmt.Sprintf(at, quantity))
			done := make(chan error, 1)
			go func() {
				_, err := Decode(raw, podKind, &corev1.Pod{})
				done <- err
			}()
			select {
			case err := <-done:
				if err == nil {
					t.Errorf("%s is taken", raw)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s takes longer than anybody waits", raw)
			}
		}
	}
	for _, quantity := range []string{"1e3", "100E", "1E", "5e-3", "12Ei"} {
		raw := []byte(fmt.Sprintf(`{"metadata":{"labels":{"x":"1e1000"}},"spec":{"containers":[{"resources":{"requests":{"memory":%q}}}]}}`, quantity))
		if _, err := Decode(raw, podKind, &corev1.Pod{}); err != nil {
			t.Errorf("%s is refused: %v", quantity, err)
		}
	}
}

// TestQuantityFields looks for quantities in the types of what is handled, so that a version of the API that has more of them
// does not get around the guard.
func TestQuantityFields(t *testing.T) {
	for _, kind := range []any{
		corev1.Pod{}, appsv1.Deployment{}, appsv1.StatefulSet{}, appsv1.DaemonSet{}, appsv1.ReplicaSet{}, batchv1.Job{}, batchv1.CronJob{},
	} {
		found := quantitiesOf(reflect.TypeOf(kind), nil)
		if len(found) < 10 {
			t.Errorf("%T has quantities in no more than %q", kind, found)
		}
		for _, path := range found {
			guarded := slices.IndexFunc(path, func(name string) bool { return quantityFields[name] })
			free := slices.IndexFunc(path, func(name string) bool { return name == "metadata" || name == anyName })
			if guarded < 0 || free >= 0 && free < guarded {
				t.Errorf("%T: the quantity at %s is not checked", kind, strings.Join(path, "."))
			}
		}
	}
}

// anyName stands for the keys of a map.
const anyName = "*"

// quantitiesOf returns where there are quantities in a type, by the names of fields.
func quantitiesOf(of reflect.Type, path []string) (found [][]string) {
	kind := of.Kind()
	if kind == reflect.Pointer || kind == reflect.Slice {
		return quantitiesOf(of.Elem(), path)
	}
	if kind == reflect.Map {
		return quantitiesOf(of.Elem(), append(slices.Clone(path), anyName))
	}
	if of == reflect.TypeFor[resource.Quantity]() {
		return [][]string{path}
	}
	if kind != reflect.Struct {
		return nil
	}
	for field := range of.Fields() {
		inner := slices.Clone(path)
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			inner = append(inner, name)
		}
		found = append(found, quantitiesOf(field.Type, inner)...)
	}
	return found
}
