//go:build integration

package election

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

func TestHandover(t *testing.T) {
	t.Parallel()
	a := start(t, "a", t.TempDir(), nil, "--lock=handover")
	eventually(t, "a leads", a.claims)
	b := start(t, "b", t.TempDir(), nil, "--lock=handover")
	neverTwo(t, a, b)
	eventually(t, "b knows the leader", func() bool { return b.status().Leader == "a" })
	first := a.status().FencingToken
	if err := a.stop(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if a.leaderFile() {
		t.Error("a left its leader file")
	}
	eventually(t, "b leads", b.claims)
	if second := b.status().FencingToken; second <= first {
		t.Errorf("the token went from %d to %d", first, second)
	}
	lease, err := cluster.Client().CoordinationV1().Leases("default").Get(t.Context(), "handover", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if *lease.Spec.HolderIdentity != "b_uid-of-b" || *lease.Spec.LeaseTransitions != 1 || lease.Labels["app.kubernetes.io/managed-by"] != "elector" {
		t.Errorf("the Lease says %+v %+v", lease.Spec, lease.Labels)
	}
}

// TestFrozen stops the leader's process for longer than its lease, and lets it go
// on. Frozen, it can't remove its file; validUntil is for that.
func TestFrozen(t *testing.T) {
	t.Parallel()
	a := start(t, "a", t.TempDir(), nil, append(quick, "--lock=frozen")...)
	eventually(t, "a leads", a.claims)
	b := start(t, "b", t.TempDir(), nil, append(quick, "--lock=frozen")...)
	neverTwo(t, a, b)
	eventually(t, "b knows the leader", func() bool { return b.status().Leader == "a" })
	a.signal(syscall.SIGSTOP)
	eventually(t, "b leads", b.claims)
	if !a.leaderFile() {
		t.Error("a frozen process removed its file: the test shows nothing")
	}
	a.signal(syscall.SIGCONT)
	// The first answer is right already, whatever the loop has done by then.
	if code := a.answers("/leader"); code != 503 {
		t.Errorf("/leader after thawing: %d", code)
	}
	eventually(t, "a removes its file", func() bool { return !a.leaderFile() })
	eventually(t, "a knows the leader", func() bool { return a.status().Leader == "b" })
	if code := a.answers("/healthz"); code != 404 { // the app's address has none
		t.Errorf("/healthz on the app's address: %d", code)
	}
}

func TestKilledAndRestarted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := start(t, "a", dir, nil, "--lock=killed")
	eventually(t, "a leads", a.claims)
	eventually(t, "a renewed", func() bool {
		s := a.status()
		return s.Renewed != nil && s.Renewed.Sub(s.Since) > time.Second
	})
	before := a.status()
	a.signal(syscall.SIGKILL)
	<-a.done //nolint:errcheck // it was killed
	a.done <- nil
	if !a.leaderFile() {
		t.Error("SIGKILL removed the leader file: the test shows nothing")
	}
	b := start(t, "b", t.TempDir(), nil, "--lock=killed")
	eventually(t, "b knows the leader", func() bool { return b.status().Leader == "a" })
	a2 := start(t, "a", dir, nil, "--lock=killed")
	neverTwo(t, a2, b)
	eventually(t, "a resumes", func() bool { return a2.claims() && a2.status().Since.After(before.Since) })
	if after := a2.status(); after.FencingToken != before.FencingToken {
		t.Errorf("the token went from %d to %d", before.FencingToken, after.FencingToken)
	}
}

func TestStatusDirUnusable(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, "a", filepath.Join(file, "dir"), nil, "--lock=unusable")
	err := <-c.done
	c.done <- err
	if err == nil || !strings.Contains(c.log.String(), "making the status directory") {
		t.Errorf("ended with %v and said:\n%s", err, c.log.String())
	}
	if _, err := cluster.Client().CoordinationV1().Leases("default").Get(t.Context(), "unusable", metav1.GetOptions{}); err == nil {
		t.Error("it took the lock")
	}
}

func TestResign(t *testing.T) {
	t.Parallel()
	pods := []*corev1.Pod{makePod(t, "resign-0"), makePod(t, "resign-1")}
	args := []string{"--lock=resign", "--mode=leader-for-life"}
	a := start(t, "resign-0", t.TempDir(), downward(pods[0]), args...)
	eventually(t, "a leads", a.claims)
	b := start(t, "resign-1", t.TempDir(), downward(pods[1]), args...)
	neverTwo(t, a, b)
	eventually(t, "b knows the leader", func() bool { return b.status().Leader == "resign-0" })
	if code := post(a.url + "/resign"); code != 204 {
		t.Errorf("POST /resign: %d", code)
	}
	if a.leaderFile() {
		t.Error("a still claims")
	}
	eventually(t, "b leads", b.claims)
}

// TestForLife is the life of a leader-for-life: it outlives its sidecar, not its
// Pod, and a Pod of the same name is another candidate.
func TestForLife(t *testing.T) {
	t.Parallel()
	args := []string{"--lock=for-life", "--mode=leader-for-life"}
	pod := makePod(t, "life-0")
	dir := t.TempDir()
	a := start(t, "life-0", dir, downward(pod), args...)
	eventually(t, "a leads", a.claims)
	b := start(t, "life-1", t.TempDir(), downward(makePod(t, "life-1")), args...)
	eventually(t, "b knows the leader", func() bool { return b.status().Leader == "life-0" })
	token := a.status().FencingToken
	if err := a.stop(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	a = start(t, "life-0", dir, downward(pod), args...)
	neverTwo(t, a, b)
	eventually(t, "a resumes", a.claims)
	if got := a.status().FencingToken; got != token {
		t.Errorf("the token went from %d to %d", token, got)
	}
	a.signal(syscall.SIGKILL)
	<-a.done //nolint:errcheck // it was killed
	a.done <- nil
	if err := os.Remove(filepath.Join(dir, elector.LeaderFile)); err != nil { // the volume goes with the Pod
		t.Fatal(err)
	}
	deletePod(t, pod)
	eventually(t, "b leads", b.claims)
	again := makePod(t, "life-0")
	a = start(t, "life-0", t.TempDir(), downward(again), args...)
	eventually(t, "the new a knows the leader", func() bool { return a.status().Leader == "life-1" })
	if a.claims() {
		t.Error("the recreated Pod claims")
	}
	// Given away by hand, the lock is lost at once; the new owner's own candidate gets it.
	patch := `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"life-0","uid":"` + string(again.UID) + `"}]}}`
	if _, err := cluster.Client().CoreV1().ConfigMaps("default").Patch(t.Context(), "for-life", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b steps down and a leads", func() bool { return !b.leaderFile() && a.claims() })
}

// TestBesideOperatorLib meets the ConfigMap that operator-sdk's leader.Become
// makes: owned by a Pod, no label.
func TestBesideOperatorLib(t *testing.T) {
	t.Parallel()
	theirs := makePod(t, "operator-lib")
	configMaps := cluster.Client().CoreV1().ConfigMaps("default")
	if _, err := configMaps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Name:            "operator-lock",
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: theirs.Name, UID: theirs.UID}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ours := start(t, "ours", t.TempDir(), downward(makePod(t, "ours")), "--lock=operator-lock", "--mode=leader-for-life")
	eventually(t, "ours knows the leader", func() bool { return ours.status().Leader == "operator-lib" })
	deletePod(t, theirs)
	eventually(t, "ours leads", ours.claims)
	cm, err := configMaps.Get(t.Context(), "operator-lock", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if owners := cm.OwnerReferences; len(owners) != 1 || owners[0].Name != "ours" || owners[0].Kind != "Pod" {
		t.Errorf("operator-lib would read these owners: %+v", owners)
	}
}

// TestForeignConfigMap has a name that somebody's configuration has already.
func TestForeignConfigMap(t *testing.T) {
	t.Parallel()
	configMaps := cluster.Client().CoreV1().ConfigMaps("default")
	made, err := configMaps.Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"a": "b"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, "foreign", t.TempDir(), downward(makePod(t, "foreign")), "--lock=settings", "--mode=leader-for-life")
	eventually(t, "it says what is in the way", func() bool {
		return strings.Contains(c.log.String(), "the ConfigMap default/settings is not a lock")
	})
	got, err := configMaps.Get(t.Context(), "settings", metav1.GetOptions{})
	if err != nil || got.ResourceVersion != made.ResourceVersion {
		t.Errorf("it was touched: %+v %v", got, err)
	}
}

// TestTimesBeyondWords has a client store in protobuf what the API server can't say in JSON, in the Lease of a candidate that is gone.
func TestTimesBeyondWords(t *testing.T) {
	t.Parallel()
	config := cluster.RESTConfig()
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := coordinationclient.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	late := metav1.NewMicroTime(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))
	early := metav1.NewMicroTime(time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC))
	_, err = client.Leases("default").Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "beyond"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("gone"), LeaseDurationSeconds: new(int32(1)), AcquireTime: &early, RenewTime: &late},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, "beyond", t.TempDir(), nil, append(quick, "--lock=beyond")...)
	eventually(t, "it leads", c.claims)
}

func TestBecome(t *testing.T) {
	t.Parallel()
	pod := makePod(t, "become")
	lock, err := kube.New(cluster.RESTConfig(), kube.Config{Candidate: elector.Description{
		Settings: elector.Settings{Lock: "become", Mode: elector.ModeLeaderForLife}, Namespace: "default",
		Identity: elector.Identity(pod.Name, string(pod.UID)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	leading, err := elector.Become(t.Context(), lock)
	if err != nil {
		t.Fatal(err)
	}
	if leading.Err() != nil {
		t.Errorf("it became leader and was none: %v", leading.Err())
	}
	if err := cluster.Client().CoreV1().ConfigMaps("default").Delete(t.Context(), "become", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	<-leading.Done()
}

func TestBecomeOutsideACluster(t *testing.T) {
	lock, err := kube.ForPod(t.Context(), elector.Settings{Lock: "become"})
	if lock != nil || err != nil {
		t.Fatalf("outside a cluster ForPod returns %v, %v", lock, err)
	}
	leading, err := elector.Become(t.Context(), lock)
	if err != nil || leading.Err() != nil {
		t.Errorf("outside a cluster Become returns %v, %v", leading, err)
	}
}

// TestCostAtRest reads the API server's audit log.
func TestCostAtRest(t *testing.T) {
	t.Parallel()
	var all []*candidate
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, start(t, name, t.TempDir(), nil, "--lock=cost"))
	}
	eventually(t, "everybody knows the leader", func() bool {
		known := 0
		for _, c := range all {
			if c.status().Leader != "" {
				known++
			}
		}
		return known == len(all)
	})
	// A standby knows the leader from its first read, and opens its watch a moment later.
	eventually(t, "the first renewal", func() bool {
		for _, c := range all {
			if now := c.status(); now.Renewed != nil && now.Renewed.After(now.Since) {
				return true
			}
		}
		return false
	})
	const rest = 20 * time.Second
	from := time.Now()
	<-time.After(rest) // the time that is measured
	to := time.Now()
	counts := map[string]int{}
	audit, err := os.Open(filepath.Join(cluster.Dir(), "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer audit.Close()
	lines := bufio.NewScanner(audit)
	lines.Buffer(nil, 1<<20)
	seen := 0
	for lines.Scan() {
		var event struct {
			Verb      string
			ObjectRef struct{ Resource, Name, Namespace string }
			UserAgent string
			Stage     string
			Received  time.Time `json:"requestReceivedTimestamp"`
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatal(err)
		}
		if event.ObjectRef.Resource != "leases" || event.ObjectRef.Name != "cost" || !strings.HasPrefix(event.UserAgent, "elector/") {
			continue
		}
		seen++
		if event.Received.After(from) && event.Received.Before(to) {
			counts[event.Verb]++
		}
	}
	if seen == 0 {
		t.Fatal("the audit log has no request for the lock at all")
	}
	if n := counts["update"]; n > int(0.35*rest.Seconds())+1 || n < 4 {
		t.Errorf("the leader renewed %d times in %v", n, rest)
	}
	delete(counts, "update")
	if len(counts) > 0 {
		t.Errorf("at rest there were %v beside renewals", counts)
	}
}
