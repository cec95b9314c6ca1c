package role

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/elector-io/elector/cmd/webhook/internal/locks"
	"github.com/elector-io/elector/elector"
)

// objects are locks that the cache does not have.
type objects struct {
	mu      sync.Mutex
	there   map[locks.Lock]string // the holder; of no other is there an object
	reads   int
	fails   error
	watches map[locks.Lock]chan string
}

// What a watch is told besides holders.
const gone, broken = "gone", "broken"

func newObjects() *objects {
	return &objects{there: map[locks.Lock]string{}, watches: map[locks.Lock]chan string{}}
}

func (o *objects) read(_ context.Context, l locks.Lock) (said locks.Said, watched bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reads++
	said.Holder, watched = o.there[l]
	return said, watched, o.fails
}

func (o *objects) watch(ctx context.Context, l locks.Lock, see func(locks.Said)) error {
	news := make(chan string)
	o.mu.Lock()
	o.watches[l] = news
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.watches, l)
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case holder := <-news:
			switch holder {
			case gone:
				see(locks.Said{})
				return nil
			case broken:
				return errors.New(broken)
			}
			see(locks.Said{Holder: holder})
		}
	}
}

// bed is a follower in virtual time.
type bed struct {
	*testing.T
	*objects
	f    *follower
	news int
	stop func()
}

func follow(t *testing.T, do func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := &bed{T: t, objects: newObjects()}
		b.f = newFollower(ctx, b.objects, func(_ locks.Lock, before, after locks.Said) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.news++; before.Holder == after.Holder && after.Holder != "" {
				t.Errorf("%+v is told after %+v", after, before)
			}
		})
		b.stop = func() { cancel(); b.f.wait() }
		defer b.stop()
		do(b)
	})
}

// expect compares what is known of webLease, and what it cost.
func (b *bed) expect(holder string, known bool, reads, watches, news int) {
	b.Helper()
	synctest.Wait()
	said, gotKnown := b.f.holder(webLease)
	b.mu.Lock()
	defer b.mu.Unlock()
	got, want := fmt.Sprint(said.Holder, gotKnown, b.reads, len(b.watches), b.news), fmt.Sprint(holder, known, reads, watches, news)
	if got != want {
		b.Errorf("holder, known, reads, watches, news: %s, want %s", got, want)
	}
}

// cost is what there was so far, and the watches that there are.
func (b *bed) cost() (reads, watches, news int) {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reads, len(b.watches), b.news
}

// put makes the lock have that holder.
func (b *bed) put(l locks.Lock, holder string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.there[l] = holder
}

func (b *bed) tell(holder string) {
	b.mu.Lock()
	news := b.watches[webLease]
	b.mu.Unlock()
	news <- holder
	synctest.Wait()
}

// TestFollower has a lock that somebody else made.
func TestFollower(t *testing.T) {
	follow(t, func(b *bed) {
		b.put(webLease, "a")
		b.expect("", false, 0, 0, 0)
		<-time.After(followAfter)
		b.expect("a", true, 1, 1, 1)
		b.tell("a") // a renewal brings the same again
		b.tell("a")
		b.expect("a", true, 1, 1, 1)
		b.tell("b")
		b.expect("b", true, 1, 1, 2)
		b.tell(broken)
		b.expect("b", true, 1, 0, 2)
		<-time.After(followRetry)
		b.expect("a", true, 2, 1, 3)
		b.tell(gone)
		b.mu.Lock()
		delete(b.there, webLease)
		b.mu.Unlock()
		b.expect("", true, 2, 0, 4)
		<-time.After(time.Minute)
		b.expect("", true, 4, 0, 4)
	})
}

// TestForget has the cache know the lock after all.
func TestForget(t *testing.T) {
	follow(t, func(b *bed) {
		b.put(webLease, "a")
		b.f.holder(webLease)
		<-time.After(followAfter)
		b.expect("a", true, 1, 1, 1)
		b.f.forget(webLease, true)
		<-time.After(time.Hour)
		if reads, watches, _ := b.cost(); reads != 1 || watches != 0 {
			b.Errorf("%d reads and %d watches of a lock that the cache has", reads, watches)
		}
		b.expect("", true, 1, 0, 1) // the cache had it: it is free
		b.f.forget(webLease, false)
		b.expect("", false, 1, 0, 1)
	})
}

// TestUnreadable holds that a lock which cannot be read is unknown, and looked at
// again.
func TestUnreadable(t *testing.T) {
	follow(t, func(b *bed) {
		b.there[webLease], b.fails = "a", errors.New("away")
		b.f.holder(webLease)
		<-time.After(followAfter)
		b.expect("", false, 1, 0, 0)
		b.mu.Lock()
		b.fails = nil
		b.mu.Unlock()
		<-time.After(lookAgain)
		b.expect("a", true, 2, 1, 1)
	})
}

// TestManyAbsent has thousands of pods contend for locks that nobody makes.
func TestManyAbsent(t *testing.T) {
	follow(t, func(b *bed) {
		const many = 3000
		for i := range many {
			b.f.holder(locks.Lock{Namespace: "shop", Mode: elector.ModeLease, Name: strconv.Itoa(i)})
		}
		<-time.After(followAfter + time.Minute)
		reads, watches, _ := b.cost()
		if most := int(time.Minute/lookPause) + 1; reads > most || reads < most/2 || watches > 0 {
			b.Errorf("%d reads in a minute, %d watches", reads, watches)
		}
		<-time.After(many * lookPause)
		if _, _, news := b.cost(); news != many {
			b.Errorf("%d locks are known to be free", news)
		}
	})
}

// TestManyThere has more locks of somebody else's than may be watched: the others
// are read now and then.
func TestManyThere(t *testing.T) {
	follow(t, func(b *bed) {
		const many = maxWatches + 50
		lock := func(i int) locks.Lock {
			return locks.Lock{Namespace: "shop-" + strconv.Itoa(i%5), Mode: elector.ModeLeaderForLife, Name: strconv.Itoa(i)}
		}
		for i := range many {
			b.put(lock(i), "a")
			b.f.holder(lock(i))
		}
		<-time.After(followAfter + many*lookPause)
		if _, watches, news := b.cost(); watches != maxWatches || news != many {
			b.Fatalf("%d watches, %d locks are known", watches, news)
		}
		for i := range many {
			b.put(lock(i), "b")
		}
		<-time.After(lookAgain + 50*lookPause)
		if _, _, news := b.cost(); news != many+50 {
			b.Errorf("%d of 50 changes are seen without a watch", news-many)
		}
		for i := range many { // places come free
			if said, _ := b.f.holder(lock(i)); said.Holder == "a" {
				b.f.forget(lock(i), false)
			}
		}
		<-time.After(lookAgain + 50*lookPause)
		if _, watches, _ := b.cost(); watches != 50 {
			b.Errorf("%d watches when there is place for all", watches)
		}
	})
}

// TestTurns has one namespace with thousands of locks that nobody makes, and one
// with more of somebody else's than may be watched of one: another namespace's
// lock is looked at, and watched, as if they were not there.
func TestTurns(t *testing.T) {
	follow(t, func(b *bed) {
		for i := range 3000 {
			b.f.holder(locks.Lock{Namespace: "mallory", Mode: elector.ModeLease, Name: strconv.Itoa(i)})
		}
		const many = maxWatches + 50
		for i := range many {
			l := locks.Lock{Namespace: "mallory-2", Mode: elector.ModeLease, Name: strconv.Itoa(i)}
			b.put(l, "a")
			b.f.holder(l)
		}
		<-time.After(2 * many * lookPause)
		if _, watches, _ := b.cost(); watches != maxWatchesOf {
			b.Errorf("%d watches of one namespace", watches)
		}
		b.put(webLease, "a")
		b.f.holder(webLease)
		<-time.After(followAfter + 4*lookPause) // the pause that it falls into, two others' turns, and its own
		if said, known := b.f.holder(webLease); said.Holder != "a" || !known {
			b.Errorf("the holder is %q, known: %v", said.Holder, known)
		}
		b.mu.Lock()
		if b.watches[webLease] == nil {
			b.Error("it is not watched")
		}
		b.mu.Unlock()
		b.stop()
		if b.f.watches > 0 || len(b.f.watchesOf) > 0 {
			b.Errorf("%d watches in %d namespaces are left", b.f.watches, len(b.f.watchesOf))
		}
	})
}

// watching tells when it watches.
type watching struct {
	client.WithWatch
	began chan struct{}
}

func (w watching) Watch(ctx context.Context, list client.ObjectList, opts ...client.ListOption) (watch.Interface, error) {
	defer close(w.began)
	return w.WithWatch.Watch(ctx, list, opts...)
}

// TestByName reads and watches objects of an API server.
func TestByName(t *testing.T) {
	lease := func(holder string, labels map[string]string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: labels}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}}
	}
	ours := map[string]string{"app.kubernetes.io/managed-by": "elector"}
	large := map[string]string{"a": strings.Repeat("a", maxWatched)}
	tests := map[string]struct {
		reason  string
		objects []client.Object
		holder  string
		watched bool
	}{
		"absent":     {"when our candidates make it, the cache has it", nil, "", false},
		"ours":       {"the cache will have it in a moment", []client.Object{lease("a", ours)}, "a", false},
		"somebody's": {"the cache will never have it", []client.Object{lease("a", nil)}, "a", true},
		"large":      {"a watch would keep memory for it", []client.Object{lease("a", large)}, "a", false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			api := byName{fake.NewClientBuilder().WithObjects(tc.objects...).Build()}
			said, watched, err := api.read(t.Context(), webLease)
			if err != nil || said.Holder != tc.holder || watched != tc.watched {
				t.Errorf("%s: holder %q, watched %v, %v", tc.reason, said.Holder, watched, err)
			}
		})
	}

	api := fake.NewClientBuilder().WithObjects(lease("a", nil)).Build()
	seen := make(chan string)
	ended := make(chan error)
	began := make(chan struct{})
	go func() {
		ended <- byName{watching{api, began}}.watch(t.Context(), webLease, func(said locks.Said) { seen <- said.Holder })
	}()
	<-began
	changed := &coordinationv1.Lease{}
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "web"}, changed); err != nil {
		t.Fatal(err)
	}
	changed.Spec.HolderIdentity = new("b")
	if err := api.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "b" {
		t.Errorf("the holder is %q", got)
	}
	if err := api.Delete(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "" {
		t.Errorf("the holder of nothing is %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestGrowing has an object that becomes too large for its watch.
func TestGrowing(t *testing.T) {
	for name, mode := range map[string]elector.Mode{"Lease": elector.ModeLease, "ConfigMap": elector.ModeLeaderForLife} {
		t.Run(name, func(t *testing.T) {
			events := watch.NewFake()
			api := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
				Watch: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) (watch.Interface, error) {
					return events, nil
				},
			})
			object := locks.Object(mode)
			object.SetAnnotations(map[string]string{"a": strings.Repeat("a", maxWatched)})
			go events.Modify(object)
			err := byName{api}.watch(t.Context(), locks.Lock{Namespace: "shop", Mode: mode, Name: "web"}, func(locks.Said) {})
			if !errors.Is(err, errTooLarge) {
				t.Errorf("got %v", err)
			}
		})
	}
}
