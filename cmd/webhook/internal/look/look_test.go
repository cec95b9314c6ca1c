package look

import (
	"fmt"
	"testing"

	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
)

var (
	webLease     = locks.Lock{Namespace: "shop", Mode: elector.ModeLease, Name: "web"}
	webConfigMap = locks.Lock{Namespace: "shop", Mode: elector.ModeLeaderForLife, Name: "web"}
)

// table is what an API server answers (1.36), shortened.
func table(columns, cells, metadata string) string {
	return fmt.Sprintf(`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"7"},"columnDefinitions":[%s],
"rows":[{"cells":[%s],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":%s}}]}`, columns, cells, metadata)
}

func TestSightOf(t *testing.T) {
	const (
		configMap = `{"name":"Name","type":"string"},{"name":"Data","type":"string"},{"name":"Age","type":"string"}`
		lease     = `{"name":"Name","type":"string"},{"name":"Holder","type":"string"},{"name":"Age","type":"string"}`
		metadata  = `{"name":"web","namespace":"shop","uid":"1","resourceVersion":"7","labels":{"a":"b"},
"annotations":{"elector.io/adopt":"true","large":"value"},"managedFields":[{"manager":"kubectl"}]}`
	)
	tests := map[string]struct {
		reason string
		lock   locks.Lock
		raw    string
		data   bool
		err    bool
	}{
		"ConfigMap":      {"a lock has no data", webConfigMap, table(configMap, `"web",0,"5s"`, metadata), false, false},
		"data":           {"three entries", webConfigMap, table(configMap, `"web",3,"5s"`, metadata), true, false},
		"unknown number": {"rather too careful", webConfigMap, table(configMap, `"web","many","5s"`, metadata), true, false},
		"Lease":          {"it holds none", webLease, table(lease, `"web","a_1","5s"`, metadata), false, false},
		"no column":      {"nothing is granted on a guess", webConfigMap, table(lease, `"web","a_1","5s"`, metadata), false, true},
		"few cells":      {"nothing is granted on a guess", webConfigMap, table(configMap, `"web"`, metadata), false, true},
		"another":        {"nothing is granted on a guess", webConfigMap, table(configMap, `"web",0,"5s"`, `{"name":"db","namespace":"shop","uid":"1"}`), false, true},
		"no metadata":    {"nothing is granted on a guess", webConfigMap, table(configMap, `"web",0,"5s"`, `null`), false, true},
		"no rows":        {"nothing is granted on a guess", webConfigMap, `{"kind":"Table","rows":[]}`, false, true},
		"no table":       {"an API server that knows none sends the object", webConfigMap, `{"kind":"ConfigMap","metadata":` + metadata + `}`, false, true},
		"no JSON":        {"a proxy's page", webConfigMap, `<html>`, false, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := sightOf(tc.lock, []byte(tc.raw))
			if (err != nil) != tc.err {
				t.Fatalf("%s: error %v", tc.reason, err)
			}
			if err != nil {
				return
			}
			o := s.Object
			if s.HasData != tc.data || o.UID != "1" || o.ResourceVersion != "7" || o.Labels["a"] != "b" || !locks.Adopted(o) || o.GroupVersionKind() != tc.lock.Kind() {
				t.Errorf("%s: got %+v of %+v", tc.reason, s, o)
			}
			if len(o.Annotations) > 1 || len(o.ManagedFields) > 0 {
				t.Errorf("kept more than is looked at: %+v", o)
			}
		})
	}
}
