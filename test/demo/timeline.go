package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/judge"
)

// What an event says, in the words of its printing.
const (
	appLeads    = "leader"   // the app has seen the leader file
	appStandsBy = "standby"  // it has seen that there is none
	appStops    = "stopping" // it was told to end
	lockFree    = "free"
	lockHeld    = "held by "
	podGone     = "gone"
	restarted   = "sidecar restarted"
	labelled    = "labelled "
)

// lockName is who an event of the lock is about.
const lockName = "the lock"

// event is one line of the timeline. All clocks are this machine's: apps date their own lines, the rest is dated on arrival.
type event struct {
	at        time.Time
	who, what string
}

// timeline collects what happens around one Deployment.
type timeline struct {
	client kubernetes.Interface
	act    act
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	events  []event
	changed chan struct{} // closed and replaced with every event
	failed  error
	seen    map[string]bool // events that are told once, logs that are followed
}

// record begins a timeline; close ends it.
func record(ctx context.Context, client kubernetes.Interface, a act) (*timeline, error) {
	ctx, cancel := context.WithCancel(ctx)
	t := &timeline{client: client, act: a, cancel: cancel, changed: make(chan struct{}), seen: map[string]bool{}}
	pods, err := client.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{LabelSelector: "app=" + a.app})
	if err == nil {
		var lock watch.Interface
		if lock, err = a.watchLock(ctx, client); err == nil {
			t.wg.Go(func() { t.follow(lock, t.lockEvent) })
			t.wg.Go(func() { t.follow(pods, func(e watch.Event) { t.podEvent(ctx, e) }) })
			return t, nil
		}
		pods.Stop()
	}
	cancel()
	return nil, fmt.Errorf("watching: %w", err)
}

func (t *timeline) close() {
	t.cancel()
	t.wg.Wait()
}

// follow ends with the watch, which outlives the demo or ends with its context.
func (t *timeline) follow(w watch.Interface, each func(watch.Event)) {
	defer w.Stop()
	for e := range w.ResultChan() {
		if e.Type == watch.Error {
			t.fail(fmt.Errorf("watching: %v", e.Object))
			return
		}
		each(e)
	}
}

func (a act) watchLock(ctx context.Context, client kubernetes.Interface) (watch.Interface, error) {
	options := metav1.ListOptions{FieldSelector: "metadata.name=" + inject.DefaultLock(a.app, a.mode)}
	if a.mode == elector.ModeLeaderForLife {
		return client.CoreV1().ConfigMaps(namespace).Watch(ctx, options)
	}
	return client.CoordinationV1().Leases(namespace).Watch(ctx, options)
}

// holder is the pod that a lock names.
func holder(lock runtime.Object) string {
	switch o := lock.(type) {
	case *coordinationv1.Lease:
		if o.Spec.HolderIdentity != nil {
			return elector.NameOf(*o.Spec.HolderIdentity)
		}
	case *corev1.ConfigMap:
		if len(o.OwnerReferences) > 0 {
			return o.OwnerReferences[0].Name
		}
	}
	return ""
}

func (t *timeline) lockEvent(e watch.Event) {
	what := lockFree
	if name := holder(e.Object); e.Type != watch.Deleted && name != "" {
		what = lockHeld + name
	}
	if what != t.lock() { // renewals are no news
		t.add(event{time.Now(), lockName, what})
	}
}

func (t *timeline) podEvent(ctx context.Context, e watch.Event) {
	pod, ok := e.Object.(*corev1.Pod)
	if !ok {
		return
	}
	if e.Type == watch.Deleted {
		t.add(event{time.Now(), pod.Name, podGone})
		return
	}
	if role := pod.Labels["elector.io/role"]; role != "" && t.lastOf(pod.Name, labelled) != labelled+role {
		t.add(event{time.Now(), pod.Name, labelled + role})
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running != nil && t.once("logs of "+c.ContainerID) {
			t.wg.Go(func() { t.followLogs(ctx, pod.Name, c.Name) })
		}
	}
	for _, c := range pod.Status.InitContainerStatuses {
		if c.RestartCount > 0 && c.State.Running != nil && t.once("restart to "+c.ContainerID) {
			t.add(event{time.Now(), pod.Name, restarted})
		}
	}
}

// followLogs ends with the container, or with ctx.
func (t *timeline) followLogs(ctx context.Context, pod, container string) {
	stream, err := t.client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container, Follow: true}).Stream(ctx)
	if err != nil {
		if ctx.Err() == nil {
			t.fail(fmt.Errorf("reading the log of %s: %w", pod, err))
		}
		return
	}
	defer stream.Close()
	for lines := bufio.NewScanner(stream); lines.Scan(); {
		stamp, what, _ := strings.Cut(lines.Text(), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			t.fail(fmt.Errorf("%s wrote %q: %w", pod, lines.Text(), err))
			return
		}
		t.add(event{at, pod, what})
	}
}

func (t *timeline) once(what string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := !t.seen[what]
	t.seen[what] = true
	return first
}

func (t *timeline) add(e event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Lines of logs arrive late, with the time at which they were written.
	i := len(t.events)
	for i > 0 && t.events[i-1].at.After(e.at) {
		i--
	}
	t.events = slices.Insert(t.events, i, e)
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *timeline) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = err
	close(t.changed)
	t.changed = make(chan struct{})
}

// lock is what the lock was last.
func (t *timeline) lock() string { return t.lastOf(lockName, "") }

// appSays is what the app of a pod said last.
func (t *timeline) appSays(pod string) string { return t.lastOf(pod, appLeads, appStandsBy, appStops) }

// lastOf is the last event about somebody that begins with one of the words.
func (t *timeline) lastOf(who string, words ...string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range slices.Backward(t.events) {
		if e.who == who && slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(e.what, w) }) {
			return e.what
		}
	}
	return ""
}

// verdict is the judge's about what the apps said. Of tokens they say nothing.
func (t *timeline) verdict() judge.Verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	lock := judge.Lock{Tokenless: true}
	for _, e := range t.events {
		at := e.at.Sub(t.events[0].at)
		switch e.what {
		case appLeads:
			lock.Began(e.who, 0, at)
		case appStandsBy, appStops, podGone:
			lock.Ended(e.who, at)
		}
	}
	return lock.Verdict()
}

// since returns the events from a time on.
func (t *timeline) since(start time.Time) []event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(t.events), func(e event) bool { return e.at.Before(start) })
}

// patience is how long the demo waits for one thing to happen. Nothing takes that long but a takeover by expiry, which it does not show.
const patience = 2 * time.Minute

// wait returns the first event from start on that matches.
func (t *timeline) wait(ctx context.Context, start time.Time, awaited string, match func(event) bool) (event, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		t.mu.Lock()
		changed, failed := t.changed, t.failed
		t.mu.Unlock()
		if failed != nil {
			return event{}, failed
		}
		if all := t.since(start); slices.ContainsFunc(all, match) {
			return all[slices.IndexFunc(all, match)], nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return event{}, fmt.Errorf("%s did not happen within %s: %w\n%s", awaited, patience, ctx.Err(), t.text(start, time.Now()))
		}
	}
}

// text is the timeline between two times.
func (t *timeline) text(start, end time.Time) string {
	var b strings.Builder
	for _, e := range t.since(start) {
		if !e.at.After(end) {
			what := e.what
			if what == appLeads || what == appStandsBy || what == appStops {
				what = "its app says: " + what
			}
			fmt.Fprintf(&b, "  %7.3f s  %-24s %s\n", e.at.Sub(start).Seconds(), e.who, what)
		}
	}
	return b.String()
}

func (t *timeline) print(out io.Writer, start, end time.Time) { fmt.Fprint(out, t.text(start, end)) }
