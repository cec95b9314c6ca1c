//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
)

// door is the port of one of the manager's pods at which API servers knock, as anybody in the cluster can.
type door struct {
	t       *testing.T
	address string
	tls     *tls.Config
	client  *http.Client // as an API server's: HTTP/2
	pid     int
}

const (
	managerNamespace = "elector-system"
	managerName      = "elector-webhook"
)

// newDoor finds a ready replica, the first of them or the last, and trusts what API servers are told to trust.
func newDoor(t *testing.T, last bool) *door {
	t.Helper()
	configuration, err := cluster.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), managerName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(configuration.Webhooks[0].ClientConfig.CABundle) {
		t.Fatal("the webhook's caBundle holds no certificate")
	}
	pods, err := cluster.Client().CoreV1().Pods(managerNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=elector"})
	if err != nil {
		t.Fatal(err)
	}
	replicas := slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return !ready(&p) })
	if len(replicas) == 0 {
		t.Fatal("no replica of the manager is ready")
	}
	pod := &replicas[0]
	if last {
		pod = &replicas[len(replicas)-1]
	}
	pid, err := strconv.Atoi(strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "process://"))
	if err != nil {
		t.Fatal(err)
	}
	_, host, _ := strings.Cut(pod.Status.PodIP, ".") // where it really listens, see test/cluster
	d := &door{
		t: t, address: "127." + host + ":9443", pid: pid,
		tls: &tls.Config{RootCAs: roots, ServerName: managerName + "." + managerNamespace + ".svc", MinVersion: tls.VersionTLS12},
	}
	transport := &http.Transport{TLSClientConfig: d.tls.Clone(), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	d.client = &http.Client{Transport: transport, Timeout: embedded.Patience}
	return d
}

// post sends anything and returns status and body.
func (d *door) post(ctx context.Context, path, mediaType string, body io.Reader) (code int, answer string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+d.address+path, body)
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", mediaType)
	response, err := d.client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

// review is what an API server sends when somebody creates the object.
func review(kind metav1.GroupVersionKind, object []byte) ([]byte, error) {
	return json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request:  &admissionv1.AdmissionRequest{UID: "1", Kind: kind, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: object}},
	})
}

// ask sends a review of a pod's creation.
func (d *door) ask(ctx context.Context, pod []byte) (*admissionv1.AdmissionResponse, error) {
	body, err := review(metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, pod)
	if err != nil {
		return nil, err
	}
	code, answer, err := d.post(ctx, "/mutate-pod", "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	var review admissionv1.AdmissionReview
	if code != http.StatusOK {
		return nil, fmt.Errorf("%d %s", code, answer)
	}
	if err := json.Unmarshal([]byte(answer), &review); err != nil || review.Response == nil || review.Response.UID != "1" {
		return nil, fmt.Errorf("no answer: %.200s", answer)
	}
	return review.Response, nil
}

const ordinaryPod = `{"metadata":{"name":"web","annotations":{"elector.io/enabled":"true"}},"spec":{"serviceAccountName":"web","containers":[{"name":"app","image":"app:v1"}]}}`

// keepAsking sends ordinary reviews, one after the other, until the test ends. All of them are to be answered.
func (d *door) keepAsking() (stop func()) {
	ctx, cancel := context.WithCancel(d.t.Context())
	var asking sync.WaitGroup
	n, slowest := 0, time.Duration(0)
	asking.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			start := time.Now()
			response, err := d.ask(ctx, []byte(ordinaryPod))
			if ctx.Err() != nil {
				return
			}
			if err != nil || !response.Allowed || len(response.Patch) == 0 {
				d.t.Errorf("an ordinary review in the meantime: %v, %v", response, err)
			}
			slowest = max(slowest, time.Since(start))
		}
	})
	return func() {
		cancel()
		asking.Wait()
		if n == 0 {
			d.t.Error("no ordinary review was sent in the meantime")
		}
		d.t.Logf("%d ordinary reviews in the meantime, the slowest took %s", n, slowest)
	}
}

// memory returns what the process has resident, now and at most so far.
func (d *door) memory() (now, most int64) {
	d.t.Helper()
	status, err := os.Open("/proc/" + strconv.Itoa(d.pid) + "/status")
	if err != nil {
		d.t.Fatal(err)
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "VmRSS: %d kB", &now)
		_, _ = fmt.Sscanf(lines.Text(), "VmHWM: %d kB", &most)
	}
	return now << 10, most << 10
}

// What is no review is refused with an HTTP status and a sentence, at the port of the running manager.
func TestNoReview(t *testing.T) {
	t.Parallel()
	d := newDoor(t, false)
	deployment := metav1.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
	whole, err := review(deployment, []byte(ordinaryPod))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path, mediaType, body string
		code                  int
		want                  string
	}{
		"garbage":         {"/mutate-pod", "application/json", "\x00\x01garbage", 400, `the body is no AdmissionReview: invalid character '\x00' looking for beginning of value`},
		"truncated":       {"/mutate-pod", "application/json", string(whole[:len(whole)/2]), 400, "the body is no AdmissionReview: unexpected end of JSON input"},
		"other path":      {"/mutate-workload", "application/json", "{", 400, "the body is no AdmissionReview: unexpected end of JSON input"},
		"no path":         {"/", "application/json", "{", 404, "404 page not found"},
		"empty":           {"/mutate-pod", "application/json", "", 400, "the body is empty, send an AdmissionReview"},
		"10 MB":           {"/mutate-pod", "application/json", strings.Repeat("x", 10<<20), 413, "the review is larger than 7340032 bytes"},
		"wrong kind":      {"/mutate-pod", "application/json", ordinaryPod, 400, `the body is " ", send an AdmissionReview of admission.k8s.io/v1`},
		"wrong version":   {"/mutate-pod", "application/json", strings.Replace(string(whole), "admission.k8s.io/v1", "admission.k8s.io/v1beta1", 1), 400, `the body is "admission.k8s.io/v1beta1 AdmissionReview", send an AdmissionReview of admission.k8s.io/v1`},
		"wrong type":      {"/mutate-pod", "text/yaml", string(whole), 415, `send an AdmissionReview as application/json, not as "text/yaml"`},
		"many containers": {"/mutate-pod", "application/json", strings.Replace(string(whole), `"containers":[`, `"containers":[`+strings.Repeat("{},", 200_000), 1), 413, "the review has so many lists and objects that it would take too much memory"},
		// A review, so it is answered with one.
		"wrong object": {"/mutate-pod", "application/json", string(whole), 200, `this webhook does not handle "apps/v1 Deployment", it is registered for the wrong resource`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, answer, err := d.post(t.Context(), test.path, test.mediaType, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			var said admissionv1.AdmissionReview
			if code == http.StatusOK && json.Unmarshal([]byte(answer), &said) == nil && said.Response != nil && !said.Response.Allowed {
				answer = said.Response.Result.Message
			}
			if answer = strings.TrimSpace(answer); code != test.code || answer != test.want {
				t.Errorf("answered with\n%d %.300s\nwant\n%d %s", code, answer, test.code, test.want)
			}
		})
	}
	response, err := d.client.Get("https://" + d.address + "/mutate-pod")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != http.MethodPost {
		t.Errorf("GET is answered with %s, allowed is %q", response.Status, response.Header.Get("Allow"))
	}
}

// Clients that do not speak TLS are told so; those that stop in the middle are let go.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	d := newDoor(t, false)
	defer d.keepAsking()()
	var wg sync.WaitGroup
	defer wg.Wait()
	// A person would do something else than wait for longer than this; the server ends each within half of it.
	const most = 40 * time.Second
	tests := map[string]struct {
		plain bool
		sent  string
		then  string // again and again
		want  string
	}{
		"no TLS":             {true, "GET /healthz HTTP/1.1\r\nHost: elector\r\n\r\n", "", "HTTP/1.1 400 Bad Request"},
		"nothing at all":     {true, "", "", ""},
		"half a handshake":   {true, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "", ""},
		"half a header":      {false, "POST /mutate-pod HTTP/1.1\r\nHost: elector\r\nContent-", "", "HTTP/1.1 400 Bad Request"},
		"a header in drops":  {false, "POST /mutate-pod HTTP/1.1\r\nHost: elector\r\nX: ", "y", ""},
		"half a body":        {false, "POST /mutate-pod HTTP/1.1\r\nHost: elector\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{", "", "HTTP/1.1 408 Request Timeout"},
		"a body in drops":    {false, "POST /mutate-pod HTTP/1.1\r\nHost: elector\r\nContent-Type: application/json\r\nContent-Length: 7000000\r\n\r\n{", " ", "HTTP/1.1 408 Request Timeout"},
		"a body of no end":   {false, "POST /mutate-pod HTTP/1.1\r\nHost: elector\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", "HTTP/1.1 408 Request Timeout"},
		"a header of no end": {false, "POST /mutate-pod HTTP/1.1\r\nHost: elector\r\nX: " + strings.Repeat("x", 1<<20), "", "HTTP/1.1 431 Request Header Fields Too Large"},
	}
	for name, test := range tests {
		for range 10 {
			wg.Go(func() {
				start := time.Now()
				said, err := d.talk(test.plain, test.sent, test.then, most)
				if err != nil || !strings.HasPrefix(said, test.want) || test.want == "" && said != "" {
					t.Errorf("%s: after %s %q, %v, want %q", name, time.Since(start), said, err, test.want)
				}
			})
		}
	}
	// The same as API servers speak it.
	for range 10 {
		wg.Go(func() {
			body, end := io.Pipe()
			defer func() { _ = end.Close() }()
			code, said, err := d.post(t.Context(), "/mutate-pod", "application/json", body)
			if err != nil || code != http.StatusRequestTimeout || said != "the review did not arrive in time\n" {
				t.Errorf("half a body over HTTP/2: %d %q, %v", code, said, err)
			}
		})
	}
}

// talk connects, sends a text, then another every 100 ms, and returns what the server said before it hung up.
func (d *door) talk(plain bool, text, then string, most time.Duration) (said string, err error) {
	conn, err := net.DialTimeout("tcp", d.address, most)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(most)); err != nil {
		return "", err
	}
	if !plain {
		config := d.tls.Clone()
		config.NextProtos = []string{"http/1.1"}
		conn = tls.Client(conn, config)
	}
	var writing sync.WaitGroup
	defer writing.Wait()
	ctx, cancel := context.WithCancel(d.t.Context())
	defer cancel()
	writing.Go(func() { // until the server does not listen any more
		if _, err := io.WriteString(conn, text); err != nil || then == "" {
			return
		}
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, err := io.WriteString(conn, then); err != nil {
				return
			}
		}
	})
	content, err := io.ReadAll(conn)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return string(content), err
	}
	return string(content), nil // it hung up, one way or another
}

// maxGrowth is how much more memory than before the manager may take, whatever is sent to its port: 74 MiB for bodies and what is
// made of them, and as much again that Go has not collected yet.
const maxGrowth = 160 << 20

// A storm of large reviews leaves the manager's memory within bounds, and ordinary reviews are answered during it.
func TestStorm(t *testing.T) {
	t.Parallel()
	d := newDoor(t, true) // slow clients are at the other's
	before, _ := d.memory()
	stop := d.keepAsking()
	pod := func(spec string) string {
		body, err := review(metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, []byte(strings.Replace(ordinaryPod, `"containers"`, spec+`,"containers"`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	bodies := map[string]string{
		"10 MB of garbage":   strings.Repeat("x", 10<<20),
		"7 MB of text":       pod(`"hostname":"` + strings.Repeat("x", 7_000_000) + `"`),
		"2 MB of {}":         pod(`"volumes":[` + strings.Repeat("{},", 700_000) + `{}]`),
		"20,000 volumes":     pod(`"volumes":[` + strings.Repeat(`{},`, 20_000) + `{}]`),
		"20,000 tolerations": pod(`"tolerations":[` + strings.Repeat(`{},`, 20_000) + `{}]`),
		"nested lists":       pod(`"x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000)),
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]map[int]int{}
	for name, body := range bodies {
		answers[name] = map[int]int{}
		for range 10 {
			wg.Go(func() {
				code, answer, err := d.post(t.Context(), "/mutate-pod", "application/json", strings.NewReader(body))
				if err != nil && !cutShort(err) {
					t.Errorf("%s: %d %.200q %v", name, code, answer, err)
				}
				mu.Lock()
				defer mu.Unlock()
				answers[name][code]++
			})
		}
	}
	wg.Wait()
	stop()
	for name, codes := range answers {
		for code := range codes {
			if code >= http.StatusInternalServerError && code != http.StatusServiceUnavailable {
				t.Errorf("%s: status %d", name, code)
			}
		}
	}
	after, most := d.memory()
	t.Logf("memory in MiB: %d before, %d after, at most %d; answers %v", before>>20, after>>20, most>>20, answers)
	if most-before > maxGrowth {
		t.Errorf("the manager's memory grew from %d to %d MiB", before>>20, most>>20)
	}
}

// cutShort tells whether the server hung up before it had read all, which it may do when it has answered.
func cutShort(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// warnings collects what the API server passes on.
type warnings struct {
	mu   sync.Mutex
	said []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, text)
}

// warned returns a client, and what it is warned of.
func warned(t *testing.T) (kubernetes.Interface, *warnings) {
	t.Helper()
	w := &warnings{}
	config := cluster.RESTConfig()
	config.WarningHandler = w
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client, w
}

var _ rest.WarningHandler = &warnings{}

// Values that nobody would write are refused like others: in one line that a person reads to its end.
func TestAbsurdValues(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	values := map[string]string{
		"200 KB":  strings.Repeat("x,ä", 50_000),
		"lines":   "web\nelector.io/mode: lease\n",
		"Unicode": "вэб-リーダー-\u202e\u200b",
		"zero":    "\x00",
		"JSON":    `{"$(POD_NAME)":["` + "`id`" + `"]}`,
	}
	client, _ := warned(t)
	for name, value := range values {
		for _, a := range inject.Annotations() {
			key := strings.TrimPrefix(a.Key, inject.Prefix)
			_, err := client.CoreV1().Pods(s.name).Create(t.Context(), s.pod(annotations(elector.ModeLease, key, value)), metav1.CreateOptions{})
			checkAbsurd(t, name+" as a pod's "+key, err, key)
			d := s.deployment("web", nil)
			d.Annotations = annotations(elector.ModeLease, key, value)
			_, err = client.AppsV1().Deployments(s.name).Create(t.Context(), d, metav1.CreateOptions{})
			checkAbsurd(t, name+" as a Deployment's "+key, err, key)
		}
	}
}

func checkAbsurd(t *testing.T, what string, err error, key string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s was admitted", what)
		return
	}
	_, sentence, denied := strings.Cut(err.Error(), `.elector.io" denied the request: `)
	if !denied || !strings.HasPrefix(sentence, "elector.io/"+key+" \"") || !strings.Contains(sentence, `" is not allowed: `) ||
		strings.ContainsAny(sentence, "\n\x00\u202e") || len(sentence) > 500 {
		t.Errorf("%s was refused with %d bytes:\n%.600s", what, len(err.Error()), err)
	}
}

// A key that nobody reads is warned of, with the nearest one, and changes nothing.
func TestUnknownKey(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	const want = `elector.io: the annotation "elector.io/lease-durration" is unknown and has no effect, the nearest known one is "elector.io/lease-duration"`
	client, w := warned(t)
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	pod, err := client.CoreV1().Pods(s.name).Create(t.Context(), s.pod(annotations(elector.ModeLease, "lease-durration", strings.Repeat("x", 200_000))), dryRun)
	if err != nil {
		t.Fatal(err)
	}
	if !injected(pod) || !slices.Contains(w.said, want) {
		t.Errorf("injected %t, warned of %.2000q", injected(pod), w.said)
	}

	if _, err := cluster.Client().AppsV1().Deployments(s.name).Create(t.Context(), s.deployment("web", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if out := s.kubectl("annotate", "deployment", "web", "elector.io/enabled=true", "elector.io/lease-durration=15s"); !strings.Contains(out, "Warning: "+want) {
		t.Errorf("kubectl said\n%s\nwant\n%s", out, want)
	}
	out, err := cluster.Kubectl(t.Context(), "-n", s.name, "annotate", "deployment", "web", "elector.io/mode=lease\nor not").CombinedOutput()
	if sentence := `elector.io/mode "lease\nor not" is not allowed: use lease or leader-for-life`; err == nil || !strings.HasSuffix(string(out), "denied the request: "+sentence+"\n") {
		t.Errorf("kubectl said\n%s\nwant\n%s", out, sentence)
	}
}

// What was meant for elector and cannot be seen by it is warned of where it is written.
func TestOverlooked(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	if _, err := cluster.Client().AppsV1().Deployments(s.name).Create(t.Context(), s.deployment("web", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ change, want string }{
		"label":           {"label deployment web elector.io/enabled=true", `the label "elector.io/enabled" has no effect, write it as an annotation`},
		"prefix":          {"annotate deployment web elector/enabled=true", `the annotation "elector/enabled" has no effect, write it as "elector.io/enabled"`},
		"not enabled":     {"annotate deployment web elector.io/mode=lease", `without the annotation "elector.io/enabled" the others have no effect`},
		"lock's own":      {"annotate deployment web elector.io/adopt=true", `the annotation "elector.io/adopt" has no effect, it belongs on a Lease or ConfigMap`},
		"limit":           {"annotate deployment web elector.io/cpu-limit=1", `the annotation "elector.io/cpu-limit" has no effect, there is no such limit`},
		"template's last": {`patch deployment web -p {"metadata":{"annotations":{"elector.io/enabled":"true"}},"spec":{"template":{"metadata":{"annotations":{"elector.io/enabled":"false"}}}}}`, `the annotation "elector.io/enabled" of the workload has no effect, because its pod template has another`},
	} {
		if out := s.kubectl(append(strings.Fields(test.change), "--dry-run=server")...); !strings.Contains(out, "Warning: elector.io: "+test.want) {
			t.Errorf("%s: kubectl said\n%s\nwant\n%s", name, out, test.want)
		}
	}
	client, w := warned(t)
	job := batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: s.podSpec()}}
	job.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	cron := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "report"}, Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{inject.Prefix + "enabeld": "true"}}, Spec: job,
	}}}
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	if _, err := client.BatchV1().CronJobs(s.name).Create(t.Context(), cron, dryRun); err != nil {
		t.Fatal(err)
	}
	if want := `elector.io: the annotation "elector.io/enabeld" is unknown and has no effect, the nearest known one is "elector.io/enabled"`; !slices.Contains(w.said, want) {
		t.Errorf("of a CronJob it warned %q", w.said)
	}
	cron.Spec.JobTemplate.Annotations = map[string]string{inject.Prefix + "enabled": "yes"}
	_, err := client.BatchV1().CronJobs(s.name).Create(t.Context(), cron, dryRun)
	checkAbsurd(t, "a CronJob's Jobs'", err, "enabled")
}
