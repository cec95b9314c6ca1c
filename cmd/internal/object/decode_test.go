package object

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
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
