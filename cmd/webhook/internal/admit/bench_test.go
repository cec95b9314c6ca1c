package admit

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
)

var reviewFile = flag.String("review", "", "file of the review that BenchmarkReview sends (default: ones of 6 and 60 KB)")

// BenchmarkReview answers one review after the other, without a network. Besides
// the mean it tells quantiles, of the time and of the CPU time: what else the
// machine does is in the first and hardly in the second.
func BenchmarkReview(b *testing.B) {
	reviews := map[string][]byte{"6KB": usualReview(b, 2, 4), "60KB": usualReview(b, 4, 95)}
	if *reviewFile != "" {
		body, err := os.ReadFile(*reviewFile)
		if err != nil {
			b.Fatal(err)
		}
		reviews = map[string][]byte{"file": body}
	}
	for _, name := range slices.Sorted(maps.Keys(reviews)) {
		b.Run(name, func(b *testing.B) { benchmarkReview(b, reviews[name]) })
	}
}

func benchmarkReview(b *testing.B, body []byte) {
	h := NewLimits().Serve(Pods(options))
	runtime.LockOSThread() // the CPU clock is the thread's
	defer runtime.UnlockOSThread()
	var took, cpu []time.Duration
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/mutate", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		began, used := time.Now(), threadTime(b)
		h.ServeHTTP(w, r)
		cpu, took = append(cpu, threadTime(b)-used), append(took, time.Since(began))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
	slices.Sort(took)
	slices.Sort(cpu)
	for unit, value := range map[string]time.Duration{
		"p50-ns": took[len(took)/2], "p99-ns": took[len(took)*99/100], "cpu-p50-ns": cpu[len(cpu)/2], "cpu-p99-ns": cpu[len(cpu)*99/100],
	} {
		b.ReportMetric(float64(value.Nanoseconds()), unit)
	}
}

func threadTime(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// usualReview is what an API server sends when a pod is created: with its defaults,
// with managed fields, and with images that are named by their digests.
func usualReview(t testing.TB, containers, variables int) []byte {
	t.Helper()
	var list, managed []string
	for i := range containers {
		var env, fields []string
		for j := range variables {
			env = append(env, fmt.Sprintf(`{"name":"SETTING_%d","value":"https://service-%d.shop.svc.cluster.local/"}`, j, j))
			fields = append(fields, fmt.Sprintf(`"k:{\"name\":\"SETTING_%d\"}":{".":{},"f:name":{},"f:value":{}}`, j))
		}
		port := 8080 + i
		list = append(list, fmt.Sprintf(`{"name":"app-%d","image":"registry.example.com/shop/worker@sha256:5e8d9c0b1a2f3e4d5c6b7a8990e1234567890abcdef12345e6789abc0def1234","args":["--queue=orders","--workers=4"],`+
			`"ports":[{"name":"http-%d","containerPort":%d,"protocol":"TCP"}],"env":[%s,{"name":"PASSWORD","valueFrom":{"secretKeyRef":{"name":"database","key":"password"}}}],`+
			`"resources":{"limits":{"memory":"256Mi"},"requests":{"cpu":"100m","memory":"128Mi"}},`+
			`"volumeMounts":[{"name":"settings","mountPath":"/etc/shop"},{"name":"scratch","mountPath":"/tmp"},{"name":"kube-api-access-x2v9k","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],`+
			`"livenessProbe":{"httpGet":{"path":"/healthz","port":%d,"scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},`+
			`"readinessProbe":{"httpGet":{"path":"/readyz","port":%d,"scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},`+
			`"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}`, i, i, port, strings.Join(env, ","), port, port))
		managed = append(managed, fmt.Sprintf(`"k:{\"name\":\"app-%d\"}":{".":{},"f:args":{},"f:env":{".":{},%s},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:resources":{}}`, i, strings.Join(fields, ",")))
	}
	object := fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"generateName":"worker-7d4b9c8f6d-","namespace":"shop","labels":{"app.kubernetes.io/name":"shop","pod-template-hash":"7d4b9c8f6d"},`+
		`"annotations":{"elector.io/enabled":"true","elector.io/lock":"worker","prometheus.io/scrape":"true"},`+
		`"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"worker-7d4b9c8f6d","uid":"9c1c4c9e-5e1f-4b39-9d0a-6d1d0a2f1e11","controller":true,"blockOwnerDeletion":true}],`+
		`"managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-11-20T10:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:containers":{%s}}}}]},`+
		`"spec":{"volumes":[{"name":"settings","configMap":{"name":"shop","defaultMode":420}},{"name":"scratch","emptyDir":{}},`+
		`{"name":"kube-api-access-x2v9k","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}}],"defaultMode":420}}],`+
		`"containers":[%s],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"worker","serviceAccount":"worker","securityContext":{},"schedulerName":"default-scheduler",`+
		`"tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300},{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}],`+
		`"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority"},"status":{}}`, strings.Join(managed, ","), strings.Join(list, ","))
	if !json.Valid([]byte(object)) {
		t.Fatal("the pod is no JSON")
	}
	return review(t, admissionv1.AdmissionRequest{
		Kind: podKind, Resource: podResource, RequestKind: &podKind, RequestResource: &podResource,
		Namespace: "shop", Operation: admissionv1.Create, DryRun: new(false),
		UserInfo: authenticationv1.UserInfo{Username: "system:serviceaccount:kube-system:replicaset-controller", Groups: []string{"system:serviceaccounts", "system:authenticated"}},
		Object:   kruntime.RawExtension{Raw: []byte(object)},
		Options:  kruntime.RawExtension{Raw: []byte(`{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}`)},
	})
}

var podResource = metav1.GroupVersionResource{Version: "v1", Resource: "pods"}
