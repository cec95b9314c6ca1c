package survey

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/terminal"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// Event is one of a lock's history.
type Event struct {
	At time.Time
	// Reason is one word, Object what it is about, Message a sentence.
	Reason, Object, Message string
}

const (
	// eventPage and maxEvents bound what is read of a namespace's Events.
	eventPage = 500
	maxEvents = 20 * eventPage
	// maxHistory is how many are worth showing, the newest.
	maxHistory = 20
)

// History returns the newest Events about the lock, its candidates and their
// workload that the manager wrote, oldest first. What it said of a pod and of the
// workload alike is there once.
func (s Surveyor) History(ctx context.Context, l *Lock) ([]Event, error) {
	concerned := l.concerned()
	var history []Event
	read := 0
	for options := (metav1.ListOptions{Limit: eventPage}); read < maxEvents; {
		page, err := s.API.Client.CoreV1().Events(l.Namespace).List(ctx, options)
		if err != nil {
			return nil, s.API.Explain(ctx, err, access.Right{Verb: "list", Resource: "events", Namespace: l.Namespace})
		}
		for i := range page.Items {
			if e := &page.Items[i]; concerned(e) {
				history = append(history, eventOf(e))
			}
		}
		read += len(page.Items)
		if options.Continue = page.Continue; options.Continue == "" {
			break
		}
	}
	slices.SortStableFunc(history, func(a, b Event) int { return a.At.Compare(b.At) })
	history = slices.CompactFunc(history, func(a, b Event) bool {
		return a.Reason == b.Reason && a.Message == b.Message && b.At.Sub(a.At) < sameMoment
	})
	return history[max(0, len(history)-maxHistory):], nil
}

// sameMoment is how far apart the manager tells two objects the same.
const sameMoment = 2 * time.Second

// concerned tells which Events are part of the history: of the lock's object all,
// of pods and workloads those that were written the way the manager writes them.
// The kubelet and the controllers of Kubernetes name themselves as a source.
func (l *Lock) concerned() func(*corev1.Event) bool {
	lockKind := "Lease"
	if resource, _ := l.Key().Resource(); resource == "configmaps" {
		lockKind = "ConfigMap"
	}
	names := map[string]bool{}
	for i := range l.Candidates {
		c := &l.Candidates[i]
		names["Pod/"+c.Name], names[c.owner], names[c.above] = true, true, true
	}
	return func(e *corev1.Event) bool {
		object := e.InvolvedObject
		if object.Kind == lockKind && object.Name == l.Name {
			return true
		}
		return names[object.Kind+"/"+object.Name] && e.Source.Component == "" && e.ReportingController != "default-scheduler"
	}
}

func eventOf(e *corev1.Event) Event {
	at := e.EventTime.Time
	if e.Series != nil {
		at = e.Series.LastObservedTime.Time
	} else if at.IsZero() {
		at = e.LastTimestamp.Time
	}
	return Event{
		At: at, Reason: terminal.Text(e.Reason), Object: terminal.Text(strings.ToLower(e.InvolvedObject.Kind) + "/" + e.InvolvedObject.Name),
		Message: terminal.Text(e.Message),
	}
}

// above is the workload behind a pod's controller, as "Deployment/web": known where
// the controller's name says it.
func above(pod *corev1.Pod, owner *metav1.OwnerReference) string {
	switch owner.Kind {
	case "ReplicaSet":
		if hash := pod.Labels["pod-template-hash"]; hash != "" {
			if name, ok := strings.CutSuffix(owner.Name, "-"+hash); ok {
				return "Deployment/" + name
			}
		}
	case "Job":
		if i := strings.LastIndexByte(owner.Name, '-'); i > 0 && pod.Annotations[inject.Prefix+elector.FieldLock] == owner.Name[:i] {
			return "CronJob/" + owner.Name[:i]
		}
	}
	return ""
}
