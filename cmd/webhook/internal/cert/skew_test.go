package cert

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

var (
	skewSeed = flag.Int64("skew-seed", 0, "the seed of TestSkew's one run; 0 for some runs with others each time")
	skewRuns = flag.Int("skew-runs", 2, "how many runs")
)

// TestSkew lets replicas on machines whose clocks are set to anything live
// through rotations, while they are cut off and restarted, and while hands edit
// the Secret and the caBundle. Whenever the API server's clock is right:
//   - it accepts every replica, a few seconds after the last harm that nobody could
//     have prevented, such as a caBundle that was overwritten,
//   - it accepts every replica that says that it is ready,
//   - nothing from the future is in the Secret or in the caBundle.
//
// The API server's own clock is set wrong from time to time, too. All is well again
// when it is right again.
func TestSkew(t *testing.T) {
	seeds := []int64{*skewSeed}
	if *skewSeed == 0 {
		seeds = nil
		for range *skewRuns {
			seeds = append(seeds, rand.Int63())
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				for range 10 * 60 {
					w.second()
				}
				if w.rotations() < 5 {
					t.Errorf("only %d CAs were published: nothing rotated", w.rotations())
				}
			})
		})
	}
}

// world is an API server, and replicas on machines with clocks of their own.
type world struct {
	*api
	random   *rand.Rand
	server   *dated
	machines []*machine
	// one harm that lasts, if any: it ends at a time.
	harm  string
	until time.Time
	// calm is when all has to be well again.
	calm time.Time
	cas  map[string]bool
}

type machine struct {
	*Self
	ahead    time.Duration // its clock
	cut      bool
	excused  time.Time
	looked   time.Time
	versions string // of what it saw last
}

const (
	// heal is how long it takes until every replica has looked at the clock and at
	// what has changed.
	heal = 5 * time.Second
	// longest is how long the longest harm lasts. A serving certificate has a third of
	// its minute left when it is renewed.
	longest = 15
)

// clocks are as they are found: seconds, time zones, dead batteries, typing errors.
var clocks = []time.Duration{0, 0, time.Second, -time.Minute, 2 * time.Hour, -9 * time.Hour, 400 * 24 * time.Hour, -10000 * 24 * time.Hour, 90000 * time.Hour}

func newWorld(t *testing.T, seed int64) *world {
	w := &world{api: newAPI(t), random: rand.New(rand.NewSource(seed)), server: &dated{}, cas: map[string]bool{}}
	for range 2 + w.random.Intn(2) {
		m := &machine{ahead: pick(w.random, clocks)}
		w.machines = append(w.machines, m)
		w.start(m)
		w.pass(m)
	}
	w.calm = time.Now().Add(heal)
	return w
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.Intn(len(from))] }

// way is how the machine gets to the API server's clock.
func (w *world) way(m *machine) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		if m.cut {
			return nil, errCut
		}
		return w.server.RoundTrip(r)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// start gives the machine a replica that knows nothing.
func (w *world) start(m *machine) {
	clock := newClock(w.t, w.way(m))
	clock.wall = func() time.Time { return time.Now().Add(m.ahead) }
	config := w.replica(0).Config
	config.CALifetime, config.CertificateLifetime, config.Clock = 3*time.Minute, time.Minute, clock
	config.Client = interceptor.NewClient(w.client, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if m.cut {
				return errCut
			}
			return c.Get(ctx, key, obj, opts...)
		},
	})
	s, err := NewSelf(config)
	must(w.t, err)
	m.Self, m.looked = s, time.Time{}
}

// pass is one of the replica's.
func (w *world) pass(m *machine) {
	err := m.sync(quiet(w.t))
	if err != nil && !isRace(err) && !m.cut && w.harm != "missing" {
		w.t.Fatalf("%s: %v", time.Now().Format(time.TimeOnly), err)
	}
	m.looked, m.versions = time.Now(), w.versions()
}

// versions change when somebody writes.
func (w *world) versions() string {
	if w.harm == "missing" {
		return w.config().ResourceVersion
	}
	return w.secret().ResourceVersion + " " + w.config().ResourceVersion
}

// second is a second of the world.
func (w *world) second() {
	time.Sleep(time.Second)
	if w.harm != "" && !time.Now().Before(w.until) {
		w.end()
	}
	for _, m := range w.machines {
		if w.random.Intn(30) == 0 {
			m.ahead = pick(w.random, clocks)
		}
	}
	if w.random.Intn(15) == 0 {
		w.strike()
	}
	for _, n := range w.random.Perm(len(w.machines)) {
		m := w.machines[n]
		told := m.versions != w.versions() && w.random.Intn(4) > 0 // watches take a while
		if told || time.Since(m.looked) >= m.lifetimes.rest() {
			w.pass(m)
		}
	}
	w.check()
}

// strike does a harm.
func (w *world) strike() {
	now := time.Now()
	if w.harm == "" && !now.Before(w.calm) { // nobody gets over two in the same moment
		w.until = now.Add(time.Duration(1+w.random.Intn(longest)) * time.Second)
		switch w.random.Intn(6) {
		case 0:
			w.harm, pick(w.random, w.machines).cut = "cut", true
			return
		case 1:
			w.harm, w.server.ahead = "wrong", pick(w.random, clocks)
			return
		case 2:
			w.remove()
			w.harm = "missing"
			return
		}
	}
	switch {
	case w.harm == "missing":
	case w.random.Intn(6) == 0:
		m := pick(w.random, w.machines)
		if m.cut {
			return
		}
		w.start(m)
		w.pass(m)
		m.excused = now.Add(2 * m.lifetimes.settle()) // it trusts what it finds in the caBundle, however short a time it has been there
	case w.random.Intn(3) == 0:
		c := w.config()
		bundle := pick(w.random, [][]byte{nil, []byte("garbage"), encodeCert(w.made(1000*time.Hour, time.Hour).cert), encodeCert(w.made(-time.Hour, 9000*time.Hour).cert)})
		c.Webhooks[w.random.Intn(2)].ClientConfig.CABundle = bundle
		must(w.t, w.client.Update(w.t.Context(), c))
		w.calm = later(w.calm, now.Add(heal))
	default:
		w.fill(w.handMade())
	}
	for _, m := range w.machines {
		if m.cut { // it does not hear of it
			m.excused = later(m.excused, w.until.Add(heal))
		}
	}
}

// end ends the harm that lasts.
func (w *world) end() {
	for _, m := range w.machines {
		m.cut = false
	}
	switch w.harm {
	case "missing":
		w.remake()
	case "wrong":
		w.server.ahead = 0
		w.calm = later(w.calm, time.Now().Add(heal))
	}
	w.harm = ""
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// made is a CA that is made so much later, which may be earlier.
func (w *world) made(later, lifetime time.Duration) authority {
	a, err := newAuthority(time.Now().Add(later), lifetime)
	must(w.t, err)
	return a
}

// handMade is what a hand may put into the Secret.
func (w *world) handMade() map[string][]byte {
	of := func(in ...authority) map[string][]byte {
		data, err := encode(in)
		must(w.t, err)
		return data
	}
	good, other := w.made(0, time.Hour), w.made(0, time.Hour)
	leaf, err := good.sign(time.Now(), time.Minute, []string{dnsName})
	must(w.t, err)
	var many []authority
	for range 20 {
		many = append(many, w.made(-time.Duration(w.random.Intn(100))*time.Second, time.Hour))
	}
	half, err := encode(append(w.machines[0].authorities, good))
	must(w.t, err)
	half[dataKeys] = half[dataKeys][:len(half[dataKeys])/2]
	return pick(w.random, []map[string][]byte{
		nil,
		{dataCerts: []byte("gar"), dataKeys: []byte("bage")},
		of(w.made(1000*time.Hour, 9000*time.Hour)),              // of the far future
		of(w.made(70*time.Minute, time.Hour)),                   // not valid yet
		of(w.made(-1000*time.Hour, time.Hour)),                  // expired
		of(good),                                                // somebody's
		of(w.made(-10*time.Minute, 20*time.Minute)),             // the same, older
		of(w.made(-time.Hour, time.Hour+90*time.Second), other), // about to expire, and another
		of(authority{good.cert, other.key}),                     // the key does not fit
		of(authority{leaf.Leaf, good.key}),                      // no CA
		of(many...),                                             // too many
		half,                                                    // what there was, and then nothing
	})
}

func (w *world) check() {
	now := time.Now()
	bundle := parseCerts(w.config().Webhooks[0].ClientConfig.CABundle)
	for _, c := range bundle {
		w.cas[string(c.Raw)] = true
	}
	if w.harm == "wrong" {
		return
	}
	calm := !now.Before(w.calm)
	for n, m := range w.machines {
		err := errors.New("it serves nothing")
		ready := false
		if leaf := m.leaf.Load(); leaf != nil {
			err = accepts(bundle, leaf.Leaf, now, []string{dnsName})
			told, errTold := m.Clock.Now(quiet(w.t))
			ready = err != nil && errTold == nil && accepts(bundle, leaf.Leaf, told, []string{dnsName}) == nil
		}
		switch {
		case err == nil:
		case ready && calm && !m.cut:
			w.t.Fatalf("%s: replica %d says that it is ready: %v", now.Format(time.TimeOnly), n, err)
		case calm && !now.Before(m.excused):
			w.t.Fatalf("%s: replica %d (cut off: %v, harm: %q): %v", now.Format(time.TimeOnly), n, m.cut, w.harm, err)
		}
	}
	if !calm || w.harm == "missing" || w.harm == "cut" {
		return
	}
	for what, certs := range map[string][]*x509.Certificate{"Secret": parseCerts(w.secret().Data[dataCerts]), "caBundle": bundle} {
		for _, c := range certs {
			if fromFuture(now, c) && now.Sub(w.machines[0].looked) < heal && w.machines[0].versions == w.versions() {
				w.t.Fatalf("%s: the %s has a CA of %s", now.Format(time.TimeOnly), what, c.NotBefore)
			}
		}
	}
}

func (w *world) rotations() int { return len(w.cas) }
