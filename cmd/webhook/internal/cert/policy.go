package cert

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"slices"
	"time"
)

// maxSettle bounds lifetimes.settle: API servers see a changed configuration
// within a second, ten minutes forgive one that was cut off for a while.
const maxSettle = 10 * time.Minute

const (
	// maxAuthorities bounds what the Secret holds, which is two when nobody but the
	// manager writes it. The more there are, the sooner the oldest are let go.
	maxAuthorities = 8
	// maxBundle bounds a caBundle, in certificates: there are those of the Secret and
	// others that something may still hang on.
	maxBundle = 2 * maxAuthorities
)

// lifetimes holds the durations all decisions about certificates rest on. The
// decisions are its methods. Their now is the API server's time, see ServerClock:
// what this machine's clock shows decides nothing.
type lifetimes struct {
	ca, leaf time.Duration
	// shortest is the life of the CA in use that lives shortest; 0 for none. It was
	// made by replicas with another configuration if it lives shorter than ca.
	shortest time.Duration
}

// with returns the lifetimes with what is known of the CAs in use.
func (l lifetimes) with(now time.Time, authorities []authority) lifetimes {
	l.shortest = 0
	for _, a := range authorities {
		life := a.cert.NotAfter.Sub(a.created())
		if valid(now, a.cert) && (l.shortest == 0 || life < l.shortest) {
			l.shortest = life
		}
	}
	return l
}

// settle is how long a new CA is published before it signs, so that every API
// server trusts it by then. Beside a CA that ends soon there is less time: a
// third of its life is left when it is replaced.
func (l lifetimes) settle() time.Duration {
	settle := min(maxSettle, l.leaf/10)
	if l.shortest > 0 {
		settle = min(settle, l.shortest/30) // the same, as a CA lives three times as long as what it signs
	}
	return settle
}

// rest is how long nobody has to look at the clock.
func (l lifetimes) rest() time.Duration { return min(maxRest, max(time.Second, l.settle()/2)) }

// overlap is how long a CA is trusted after its successor was made: until the
// successor signs, and then until the last certificate of the old one ended,
// even that of a replica that was cut off from the Secret.
func (l lifetimes) overlap() time.Duration { return l.settle() + l.leaf }

// published maps the certificates in the live caBundle, in DER, to what this
// process knows of them there. It is nil before the configuration was read.
type published map[string]sight

type sight struct {
	since time.Time // first seen there
	found bool      // at the first look: it may have been there for long
}

// update returns what is published when the caBundle is the given one at a time.
func (p published) update(bundle []*x509.Certificate, at time.Time) published {
	next := published{}
	for _, c := range bundle {
		seen, known := p[string(c.Raw)]
		switch {
		case !known:
			seen = sight{since: at, found: p == nil}
		case seen.since.After(at): // the API server's clock was set back
			seen.since = at
		}
		next[string(c.Raw)] = seen
	}
	return next
}

// compare sorts what is published first.
func (p published) compare(a, b authority) int {
	_, first := p[string(a.cert.Raw)]
	_, second := p[string(b.cert.Raw)]
	switch {
	case first == second:
		return 0
	case first:
		return -1
	default:
		return 1
	}
}

// settled reports whether an authority is old enough, and has been published for
// long enough, for every API server to trust it by now.
func (l lifetimes) settled(now time.Time, a authority, live published) bool {
	seen, trusted := live[string(a.cert.Raw)]
	return trusted && valid(now, a.cert) && now.Sub(a.created()) >= l.settle() && (seen.found || now.Sub(seen.since) >= l.settle())
}

// established reports whether nothing can be in use that hangs on an older
// authority: this one has signed for as long as certificates live, and it has
// been in the caBundle for as long as replicas take to see that it has settled
// and to serve what it signs. The second matters when a hand puts in an old one.
func (l lifetimes) established(now time.Time, a authority, live published) bool {
	seen, trusted := live[string(a.cert.Raw)]
	return trusted && valid(now, a.cert) && now.Sub(a.created()) >= l.overlap() && now.Sub(seen.since) >= 2*l.settle()
}

// plan says which authorities the Secret should hold, newest first, and whether a
// new one has to be made besides, by what it holds and what this process remembers
// of it.
//
// One from the future goes at once: nothing hangs on it, as API servers accept
// nothing that it signs. That one has expired is no reason to let it go: a clock
// may be wrong, the API server's too, and to trust an expired one harms nobody.
// It goes when another is established.
func (l lifetimes) plan(now time.Time, stored, remembered []authority, live published) (keep []authority, renew bool) {
	have := stored
	if !slices.ContainsFunc(stored, func(a authority) bool { return holds(remembered, a) }) {
		have = slices.Concat(stored, remembered) // it was emptied, or filled with others: what is served hangs on these
	}
	var valids, expired []authority
	for _, a := range newestFirst(have) {
		switch {
		case fromFuture(now, a.cert):
		case !valid(now, a.cert):
			expired = append(expired, a)
		case !slices.ContainsFunc(valids, func(newer authority) bool { return l.established(now, newer, live) }):
			valids = append(valids, a)
		}
	}
	if slices.ContainsFunc(valids, func(a authority) bool { return l.established(now, a, live) }) {
		expired = nil
	}
	most := maxAuthorities
	// To empty the Secret is to renew the CA. But who empties it again and again does
	// not get another before the last one signs.
	if len(valids) == 0 || pastTwoThirds(now, valids[0].cert) || len(stored) == 0 && now.Sub(valids[0].created()) >= l.settle() {
		renew = true
		most--
	}
	slices.SortStableFunc(valids, func(a, b authority) int { return live.compare(a, b) }) // something may hang on those
	keep = slices.Concat(valids, expired)
	return newestFirst(keep[:min(len(keep), most)]), renew
}

// signer picks the authority that signs serving certificates: the newest one
// that has settled; else the oldest that the live configuration trusts; else any
// is better than none. Only those that are valid count, authorities are sorted
// newest first.
func (l lifetimes) signer(now time.Time, authorities []authority, live published) (authority, bool) {
	valids := validOnes(now, authorities)
	for _, a := range valids {
		if l.settled(now, a, live) {
			return a, true
		}
	}
	for _, a := range slices.Backward(valids) {
		if _, trusted := live[string(a.cert.Raw)]; trusted {
			return a, true
		}
	}
	if len(valids) == 0 {
		return authority{}, false
	}
	return valids[0], true
}

// bundle returns the certificates the configuration should carry, newest first:
// all authorities and, until the newest one is established, what is live already:
// it may have signed what another replica still serves (the Secret was lost, or
// the certificates came from somewhere else before). What signed the leaf that is
// served here stays in any case; what is from the future never does.
func (l lifetimes) bundle(now time.Time, authorities []authority, live published, configured []*x509.Certificate, leaf *x509.Certificate) []*x509.Certificate {
	var certs, others []*x509.Certificate
	for _, a := range authorities {
		certs = append(certs, a.cert)
	}
	valids := validOnes(now, authorities)
	keepAll := len(valids) == 0 || !l.established(now, valids[0], live)
	for _, c := range slices.CompactFunc(slices.SortedFunc(slices.Values(configured), byAge), (*x509.Certificate).Equal) {
		switch {
		case fromFuture(now, c) || slices.ContainsFunc(certs, c.Equal):
		case leaf != nil && leaf.CheckSignatureFrom(c) == nil:
			others = slices.Insert(others, 0, c)
		case keepAll:
			others = append(others, c)
		}
	}
	certs = append(certs, others...)
	certs = certs[:min(len(certs), maxBundle)]
	slices.SortFunc(certs, byAge)
	return certs
}

// replace reports whether the serving certificate should give way to one of
// signer's. trusted are the certificates in the live configuration, nil if they
// are not known. One that is good is not given up for one that may be trusted
// less.
func (l lifetimes) replace(now time.Time, leaf *x509.Certificate, signer authority, live published, trusted []*x509.Certificate, dnsNames []string) bool {
	switch {
	case leaf == nil || !valid(now, leaf):
		return true
	case leaf.CheckSignatureFrom(signer.cert) == nil:
		return pastTwoThirds(now, leaf)
	case trusted == nil:
		return false // cannot know which CA is trusted
	case accepts(trusted, leaf, now, dnsNames) == nil:
		return l.settled(now, signer, live) // else not by everybody yet
	default:
		return slices.ContainsFunc(trusted, signer.cert.Equal)
	}
}

// valid is by the clock alone.
func valid(now time.Time, c *x509.Certificate) bool {
	return !fromFuture(now, c) && now.Before(c.NotAfter)
}

func fromFuture(now time.Time, c *x509.Certificate) bool { return now.Before(c.NotBefore) }

// pastTwoThirds is when certificates are renewed, which leaves a third of their
// life to get over whatever stands in the way.
func pastTwoThirds(now time.Time, c *x509.Certificate) bool {
	return now.Sub(made(c)) >= c.NotAfter.Sub(made(c))*2/3
}

func validOnes(now time.Time, authorities []authority) (out []authority) {
	for _, a := range authorities {
		if valid(now, a.cert) {
			out = append(out, a)
		}
	}
	return out
}

// holds reports whether one of the authorities is a.
func holds(authorities []authority, a authority) bool {
	return slices.ContainsFunc(authorities, func(b authority) bool { return a.cert.Equal(b.cert) })
}

func newestFirst(in []authority) []authority {
	out := slices.Clone(in)
	slices.SortFunc(out, func(a, b authority) int { return byAge(a.cert, b.cert) })
	return out
}

// byAge sorts the newest first, and in the same order in every replica.
func byAge(a, b *x509.Certificate) int {
	return cmp.Or(b.NotBefore.Compare(a.NotBefore), bytes.Compare(a.Raw, b.Raw))
}
