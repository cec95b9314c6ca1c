//go:build integration

package availability

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/embedded"
)

const stamp = "15:04:05.000"

const (
	// creators work side by side, so that the API server has several connections to the manager.
	creators = 4
	// pace is the least time between two creations of a creator. The tests run side by side: faster ones would measure how the machine
	// shares its time among them.
	pace = 150 * time.Millisecond
	// realOne is how many creations there are to one that is no dry run.
	realOne = 10
)

// traffic does one thing without pause and counts what becomes of it.
type traffic struct {
	t       *testing.T
	workers int
	quit    chan struct{}
	work    sync.WaitGroup

	mu       sync.Mutex
	done     int
	longest  time.Duration
	failures []failure
}

type failure struct {
	begun, ended time.Time
	err          error
}

// create creates annotated pods. One that comes without sidecar counts as failed.
func (i *installation) create() *traffic {
	return start(i.t, creators, func(ctx context.Context, n int) error { return i.createPod(ctx, n%realOne == 0) })
}

// start has workers call do, with ascending numbers, until the traffic is stopped or the test ends.
func start(t *testing.T, workers int, do func(context.Context, int) error) *traffic {
	tr := &traffic{t: t, workers: workers, quit: make(chan struct{})}
	for w := range workers {
		tr.work.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for n := w; ; n++ {
				select {
				case <-tr.quit:
					return
				case <-tick.C:
					tr.one(n, do)
				}
			}
		})
	}
	t.Cleanup(tr.end)
	return tr
}

func (tr *traffic) end() {
	tr.mu.Lock()
	select {
	case <-tr.quit:
	default:
		close(tr.quit)
	}
	tr.mu.Unlock()
	tr.work.Wait()
}

// one does it once. What is begun when the traffic is stopped is finished.
func (tr *traffic) one(n int, do func(context.Context, int) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tr.t.Context()), embedded.Patience)
	defer cancel()
	begun := time.Now()
	err := do(ctx, n)
	ended := time.Now()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.longest = max(tr.longest, ended.Sub(begun))
	if err != nil {
		tr.failures = append(tr.failures, failure{begun, ended, err})
		return
	}
	tr.done++
}

var dryRun = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}

// createPod creates an annotated pod, for real or as a dry run, and looks whether it has the sidecar. A real one is deleted again.
func (i *installation) createPod(ctx context.Context, isReal bool) error {
	options := dryRun
	if isReal {
		options = metav1.CreateOptions{}
	}
	pods := cluster.Client().CoreV1().Pods(i.apps)
	pod, err := pods.Create(ctx, i.gated(asking()), options)
	if err != nil {
		return err
	}
	if isReal {
		err = pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	}
	if !injected(pod) {
		err = errors.Join(err, errors.New("the pod has no sidecar"))
	}
	return err
}

func injected(pod *corev1.Pod) bool {
	_, ok := inject.StatusOf(pod)
	return ok && len(pod.Spec.InitContainers) > 0 && pod.Spec.InitContainers[0].Name == inject.ContainerName
}

// stop ends the traffic and returns what failed.
func (tr *traffic) stop(what string) []failure {
	tr.t.Helper()
	tr.end()
	tr.t.Logf("%s: %d admissions, %d failed, the longest took %s", what, tr.done, len(tr.failures), tr.longest.Round(time.Millisecond))
	if tr.done == 0 {
		tr.t.Error("nothing was admitted at all")
	}
	return tr.failures
}

// kinds are the different failures with their numbers.
func kinds(failures []failure) string {
	count := map[string]int{}
	for _, f := range failures {
		count[f.err.Error()]++
	}
	var lines []string
	for text, n := range count {
		lines = append(lines, fmt.Sprintf("%d x %s", n, text))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// stopSound ends the traffic and fails the test if a creation did.
func (tr *traffic) stopSound(what string) {
	tr.t.Helper()
	if failures := tr.stop(what); len(failures) > 0 {
		tr.t.Errorf("the first failed at %s, the last at %s:\n%s",
			failures[0].begun.Format(stamp), failures[len(failures)-1].begun.Format(stamp), kinds(failures))
	}
}

// more waits until there have been some more successes for each worker, so that what has just happened is behind them.
func (tr *traffic) more() {
	tr.t.Helper()
	some := 3 * tr.workers
	count := func() int {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return tr.done
	}
	want := count() + some
	eventually(tr.t, "traffic", func(context.Context) error {
		if have := count(); have < want {
			return fmt.Errorf("%d admissions, want %d", have, want)
		}
		return nil
	})
}
