package object

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"
)

// oddities are texts that the two readers might take differently.
var oddities = map[string]string{
	"usual":              `{"metadata":{"name":"web","creationTimestamp":"2026-11-20T10:00:00Z","managedFields":[{"fieldsV1":{"f:x":{".":{}}}}]},"spec":{"containers":[{"name":"app","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1","memory":2}},"livenessProbe":{"httpGet":{"port":"http"}}}]}}`,
	"a field twice":      `{"spec":{"containers":[{"name":"a","image":"x","env":[{"name":"A","value":"1"}]}],"containers":[{"name":"b","env":null}]}}`,
	"a label twice":      `{"metadata":{"labels":{"a":"1","a":"2"}}}`,
	"labels twice":       `{"metadata":{"labels":{"a":"1"},"labels":{"b":"2"}}}`,
	"labels and null":    `{"metadata":{"labels":{"a":"1"},"labels":null}}`,
	"twice, by escape":   `{"metadata":{"name":"a","na\u006de":"b"}}`,
	"an unknown twice":   `{"future":1,"future":2,"spec":{"x":{"y":1,"y":2}}}`,
	"another case":       `{"Metadata":{"name":"a"},"SPEC":{},"spec":{"Containers":[{}],"containers":[{"NAME":"a"}]}}`,
	"null everywhere":    `{"kind":null,"metadata":null,"spec":{"containers":[null,{"name":null,"env":[null],"resources":{"limits":{"cpu":null}},"livenessProbe":{"httpGet":{"port":null}}}],"volumes":null,"terminationGracePeriodSeconds":null,"hostNetwork":null}}`,
	"empty everywhere":   `{"metadata":{"labels":{},"annotations":{},"ownerReferences":[]},"spec":{"containers":[],"securityContext":{},"nodeSelector":{}}}`,
	"1.0":                `{"spec":{"terminationGracePeriodSeconds":1.0}}`,
	"1e3":                `{"spec":{"terminationGracePeriodSeconds":1e3}}`,
	"-0":                 `{"spec":{"terminationGracePeriodSeconds":-0}}`,
	"-0.0":               `{"spec":{"containers":[{"ports":[{"containerPort":-0.0}]}]}}`,
	"beyond int32":       `{"spec":{"containers":[{"ports":[{"containerPort":2147483648}]}]}}`,
	"beyond int64":       `{"spec":{"terminationGracePeriodSeconds":9223372036854775808}}`,
	"a number as a text": `{"metadata":{"name":1}}`,
	"a text as a number": `{"spec":{"terminationGracePeriodSeconds":"1"}}`,
	"a port of 1e1":      `{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":1e1}}}]}}`,
	"a quantity of true": `{"spec":{"overhead":{"cpu":true}}}`,
	"a time of a number": `{"metadata":{"creationTimestamp":1}}`,
	"a loose time":       `{"metadata":{"creationTimestamp":"2026-11-20T1:00:00,5Z"}}`,
	"no UTF-8":           "{\"metadata\":{\"name\":\"a\xff\"},\"fut\xffure\":1}",
	"half a surrogate":   `{"metadata":{"name":"\ud800","namespace":"\udc00\ud800"}}`,
	"a zero byte":        `{"metadata":{"name":"\u0000"}}`,
	"behind it":          `{} {}`,
	"a byte order mark":  "\ufeff{}",
	"half":               `{"spec":{"containers":[{"name":"a"`,
	"a list":             `[1]`,
	"a text":             `"pod"`,
	"nothing":            ``,
	"null":               `null`,
	"10000 deep":         `{"future":` + strings.Repeat("[", 9999) + strings.Repeat("]", 9999) + `}`,
	"10001 deep":         `{"future":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + `}`,
	"deep managed":       `{"metadata":{"managedFields":[{"fieldsV1":{"f:x":` + strings.Repeat("[", 9997) + strings.Repeat("]", 9997) + `}}]}}`,
	"a quantity of 1e99": `{"spec":{"overhead":{"cpu":"1e99","memory":" 1Gi ","x":1e3}}}`,
}

// checkUnmarshal reads the text as everything that is read here.
func checkUnmarshal(t *testing.T, raw []byte) {
	t.Helper()
	for _, empty := range []func() any{
		func() any { return &corev1.Pod{} }, func() any { return &appsv1.Deployment{} }, func() any { return &appsv1.StatefulSet{} },
		func() any { return &appsv1.DaemonSet{} }, func() any { return &batchv1.CronJob{} },
	} {
		want, got := empty(), empty()
		wantErr := kjson.UnmarshalCaseSensitivePreserveInts(raw, want)
		_, err := unmarshal(raw, got)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Errorf("%T: the error is %v, want %v", got, err, wantErr)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%T (-want +got):\n%s", got, cmp.Diff(want, got))
		}
	}
}

// TestUnmarshal holds both readers to the same, and the first to take what is usual.
func TestUnmarshal(t *testing.T) {
	for name, raw := range oddities {
		t.Run(name, func(t *testing.T) { checkUnmarshal(t, []byte(raw)) })
	}
	for name, want := range map[string]bool{"usual": true, "null everywhere": true, "a field twice": false, "labels twice": false, "twice, by escape": false, "no UTF-8": false} {
		if plain, err := unmarshal([]byte(oddities[name]), &corev1.Pod{}); err != nil || plain != want {
			t.Errorf("%s: plain is %v, %v", name, plain, err)
		}
	}
}

// FuzzUnmarshal holds both readers to the same, whatever comes.
func FuzzUnmarshal(f *testing.F) {
	for _, raw := range oddities {
		if len(raw) < 1000 {
			f.Add([]byte(raw))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if checkQuantities(raw) == nil && len(raw) < 1<<16 {
			checkUnmarshal(t, raw)
		}
	})
}

// slow is what apimachinery takes for a quantity and then takes long over.
var slow = regexp.MustCompile(`^[+-]?[0-9]*\.?[0-9]*[eE][+-]?0*[1-9][0-9]{2,}$`)

// FuzzQuantity holds that no slow quantity passes, with whatever there is around it.
func FuzzQuantity(f *testing.F) {
	for _, s := range []string{"1e100", "1E+1000", ".5e-999", "1.e100", "+1e100", " 1e100\u00a0", "\u30001e100", "1e0100", "e100", "5e8d9e1234", "1e100x", "x1e100", "1\\u0065100", "1e99", "sha256:12e345"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, raw := range []string{`{"spec":{"overhead":{"cpu":"` + s + `"}}}`, `{"spec":{"overhead":{"cpu":` + s + `,"x":1}}}`} {
			if inner := strings.TrimSpace(s); json.Valid([]byte(raw)) && slow.MatchString(inner) && checkQuantities([]byte(raw)) == nil {
				t.Errorf("%s is taken", raw)
			}
		}
	})
}

// TestDigestsAreNoQuantities keeps digests from costing a second look at the object.
func TestDigestsAreNoQuantities(t *testing.T) {
	for raw, want := range map[string]bool{
		`"app@sha256:5e8d9c0b12345e6789abc0def1234"`: false,
		`"12e345abc"`: false, `"abc12e345"`: false, `"v12e345"`: false, `"1e99"`: false, `"1e1"`: false,
		`"1e100"`: true, `"e100"`: true, `"name100"`: false, `1e100`: true, `"commit":"12e3456"`: true, `" 1E-1000 "`: true, `"1.5e+100"`: true, `"-1e100"`: true,
	} {
		if got := mayHaveHugeExponent([]byte(raw)); got != want {
			t.Errorf("%s: %v", raw, got)
		}
	}
}

// TestQuantitiesTakeAllJSON keeps the second look from refusing what the readers take, and the other way round.
func TestQuantitiesTakeAllJSON(t *testing.T) {
	for name, raw := range oddities {
		raw := []byte(`{"commit":"12e3456","inner":` + raw + `}`)
		if err := checkQuantities(raw); (err == nil) != json.Valid(raw) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
