package history

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
)

var webLease = locks.Lock{Namespace: "shop", Mode: elector.ModeLease, Name: "web"}

// told notes what is told.
type told []string

func (t *told) Eventf(_, _ runtime.Object, _, _, _, note string, args ...any) {
	*t = append(*t, fmt.Sprintf(note, args...))
}

func candidate(name, revision string) candidates.Pod {
	return candidates.Pod{Namespace: "shop", Name: name, UID: "1", Revision: revision}
}

// counted returns the changes of a reason.
func counted(t *testing.T, from prometheus.Gatherer, why reason) (n float64) {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == string(why) {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func TestBecame(t *testing.T) {
	a, b := candidate("web-a", "1"), candidate("web-b", "1")
	with := func(pod candidates.Pod, change func(*candidates.Pod)) candidates.Pod {
		change(&pod)
		return pod
	}
	going := with(a, func(p *candidates.Pod) { p.Deleting = true })
	failed := with(a, func(p *candidates.Pod) { p.Phase = corev1.PodFailed })
	parted := func(how locks.How) locks.Parting { return locks.Parting{Holder: "web-a_1", How: how} }
	asked := func(how locks.How, why string) locks.Parting {
		return locks.Parting{Holder: "web-a_1", How: how, Asked: true, Why: why}
	}
	tests := map[string]struct {
		doubt  string // why it is told so
		change Change
		want   string
		reason reason
	}{
		"first":                  {"nothing was seen", Change{Gone: true}, ": nobody led before, as far as is known", first},
		"deleted":                {"it releases on its way out", Change{Before: going, Parting: parted(locks.Released)}, " after web-a, which was deleted", deleted},
		"deleted and gone":       {"the same, seen later", Change{Before: a, Gone: true, Parting: parted(locks.Released)}, " after web-a, which was deleted", deleted},
		"rollout":                {"the next one is of another version", Change{Leader: candidate("web-b", "2"), Before: going, Parting: parted(locks.Released)}, " after web-a, which was deleted in a rollout", rollout},
		"for life":               {"its lock goes with it", Change{Before: a, Gone: true, Parting: parted(locks.Deleted)}, " after web-a, which was deleted", deleted},
		"no revisions":           {"pods of nobody have none", Change{Leader: candidate("web-b", "2"), Before: with(going, func(p *candidates.Pod) { p.Revision = "" }), Parting: parted(locks.Released)}, " after web-a, which was deleted", deleted},
		"evicted":                {"package reap has released it", Change{Before: failed, Parting: parted(locks.Released)}, " after web-a, which has ended with phase Failed", ended},
		"for life, ended":        {"its pod ends before it goes", Change{Before: with(going, func(p *candidates.Pod) { p.Phase = corev1.PodSucceeded }), Parting: parted(locks.Deleted)}, " after web-a, which was deleted", deleted},
		"crashed":                {"nobody released it", Change{Before: a, Parting: parted(locks.Taken)}, " after web-a, which did not renew the lock in time", expired},
		"lost with its node":     {"the same, whatever became of its pod", Change{Before: going, Parting: parted(locks.Taken)}, " after web-a, which did not renew the lock in time", expired},
		"resigned":               {"its pod stays", Change{Before: a, Parting: parted(locks.Released)}, " after web-a, which released the lock", released},
		"resigned from for life": {"it deletes the lock", Change{Lock: locks.Lock{Namespace: "shop", Mode: elector.ModeLeaderForLife, Name: "web"}, Before: a, Parting: parted(locks.Deleted)}, " after web-a, which released the lock", released},
		"lock deleted":           {"no candidate deletes a Lease", Change{Before: a, Parting: parted(locks.Deleted)}, " after web-a, whose lock was deleted", released},
		"lock emptied":           {"no candidate noted it", Change{Before: a, Parting: parted(locks.Emptied)}, " after web-a, whom somebody took out of the lock", released},
		"switchover":             {"its pod stays", Change{Before: a, Parting: asked(locks.Released, "kubectl: alice")}, ` after web-a on request: "kubectl: alice"`, switchover},
		"asked for nothing":      {"it need not be said", Change{Before: a, Parting: asked(locks.Released, "")}, ` after web-a on request`, switchover},
		"asked, then deleted":    {"it was asked first", Change{Before: going, Parting: asked(locks.Released, "drain")}, ` after web-a on request: "drain"`, switchover},
		"unfit":                  {"package fit has asked", Change{Before: a, Parting: asked(locks.Deleted, "fit: container app is in CrashLoopBackOff")}, ` after web-a, which was not fit: "container app is in CrashLoopBackOff"`, unfit},
		"unseen":                 {"a manager that comes later sees the label", Change{Before: a}, " after web-a, while no manager watched", unseen},
		"unseen, deleted":        {"and what became of the pod", Change{Before: going}, " after web-a, which was deleted", deleted},
		"never labelled":         {"it held the lock for a moment", Change{Before: with(candidate("web-c", "1"), func(p *candidates.Pod) { p.Phase = corev1.PodFailed }), Parting: parted(locks.Released)}, " after web-a, which released the lock", released},
		"no pod":                 {"a program elsewhere", Change{Gone: true, Parting: locks.Parting{Holder: "laptop_1", How: locks.Released}}, " after laptop, which released the lock", released},
		"forged":                 {"who may write the lock writes what they like", Change{Gone: true, Parting: locks.Parting{Holder: "a\nb" + strings.Repeat("x", 2000), How: locks.Taken}}, ` after "a\nbxxx`, expired},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var got told
			registry := prometheus.NewRegistry()
			h, err := New(Config{Events: &got, Metrics: registry})
			if err != nil {
				t.Fatal(err)
			}
			c := tc.change
			if c.Lock == (locks.Lock{}) {
				c.Lock = webLease
			}
			if c.Leader.Name == "" {
				c.Leader = b
			}
			h.Became(c)
			want := "web-b became leader of " + c.Lock.String() + tc.want
			if len(got) != 1 || got[0] != want && name != "forged" || !strings.HasPrefix(got[0], want) || len(got[0]) > 1024 {
				t.Errorf("%s: told %q, want %q", tc.doubt, got, want)
			}
			if n := counted(t, registry, tc.reason); n != 1 {
				t.Errorf("counted %v with reason %s, which was %s", n, tc.reason, c.reason())
			}
		})
	}
}

// TestFlood has two candidates that take turns every second, for a day, beside a
// lock that changes once.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got told
		registry := prometheus.NewRegistry()
		h, err := New(Config{Events: &got, Metrics: registry})
		if err != nil {
			t.Fatal(err)
		}
		change := Change{Lock: webLease, Leader: candidate("web-b", "1"), Before: candidate("web-a", "1"), Parting: locks.Parting{Holder: "web-a_1", How: locks.Taken}}
		const day = 24 * 60 * 60
		for range day {
			h.Became(change)
			<-time.After(time.Second)
		}
		if most := atOnce + day/int(pause.Seconds()); len(got) > most || len(got) < most-2 {
			t.Errorf("told %d times in a day, want %d", len(got), most)
		}
		if last := got[len(got)-1]; !strings.HasSuffix(last, "; 299 changes before it were not told") {
			t.Errorf("at last %s", last)
		}
		if n := counted(t, registry, expired); n != day {
			t.Errorf("counted %v", n)
		}
		got = nil
		change.Lock.Name = "db"
		if h.Became(change); len(got) != 1 {
			t.Error("another lock's change was not told")
		}
	})
}
