package cert

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The tables use a day for a CA and five hours for a serving certificate: a new
// CA settles for ten minutes and the overlap is 5h10m.
var testLifetimes = lifetimes{ca: 24 * time.Hour, leaf: 5 * time.Hour}

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// cas makes one authority per age, named by the age.
func cas(t *testing.T, ages ...string) (out []authority) {
	t.Helper()
	for _, age := range ages {
		d, err := time.ParseDuration(age)
		must(t, err)
		a, err := newAuthority(noon.Add(-d), testLifetimes.ca)
		must(t, err)
		out = append(out, a)
	}
	return out
}

func ages(certs []*x509.Certificate) string {
	var out []string
	for _, c := range certs {
		out = append(out, noon.Sub(authority{cert: c}.created()).String())
	}
	return strings.Join(out, " ")
}

func certsOf(in []authority) (out []*x509.Certificate) {
	for _, a := range in {
		out = append(out, a.cert)
	}
	return out
}

func TestPlan(t *testing.T) {
	tests := map[string]struct {
		reason string
		have   []string
		keep   string
		renew  bool
	}{
		"none":       {"the first start", nil, "", true},
		"young":      {"nothing to do", []string{"1h"}, "1h0m0s", false},
		"two thirds": {"renewed with a third of its life to go", []string{"16h"}, "16h0m0s", true},
		"expired":    {"an expired one is of no use", []string{"24h"}, "", true},
		"overlap":    {"the old one is trusted as long as it may be in use", []string{"17h", "5h9m"}, "5h9m0s 17h0m0s", false},
		"superseded": {"nothing the old one signed is in use any more", []string{"17h", "5h10m"}, "5h10m0s", false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			keep, renew := testLifetimes.plan(noon, cas(t, tc.have...))
			if got := ages(certsOf(keep)); got != tc.keep || renew != tc.renew {
				t.Errorf("%s: keep %q renew %v, want %q %v", tc.reason, got, renew, tc.keep, tc.renew)
			}
		})
	}
}

func TestSigner(t *testing.T) {
	tests := map[string]struct {
		reason  string
		have    []string
		trusted []int
		want    string
	}{
		"settled":             {"the newest one that every API server trusts", []string{"10m", "17h"}, []int{0, 1}, "10m0s"},
		"not settled":         {"an API server may not have seen the new bundle yet", []string{"9m", "17h"}, []int{0, 1}, "17h0m0s"},
		"not published":       {"age alone is no trust: writing the bundle may have failed", []string{"1h", "17h"}, []int{1}, "17h0m0s"},
		"first":               {"there is no other", []string{"0s"}, []int{0}, "0s"},
		"two not settled":     {"the one that was published earlier", []string{"1m", "5m"}, []int{0, 1}, "5m0s"},
		"nothing is live yet": {"any is better than none", []string{"1m", "5m"}, nil, "1m0s"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			have := cas(t, tc.have...)
			live := published{}
			for _, i := range tc.trusted {
				live[string(have[i].cert.Raw)] = time.Time{}
			}
			got := testLifetimes.signer(noon, have, live)
			if age := noon.Sub(got.created()).String(); age != tc.want {
				t.Errorf("%s: signer is %s old, want %s", tc.reason, age, tc.want)
			}
		})
	}
}

func TestBundle(t *testing.T) {
	tests := map[string]struct {
		reason     string
		have, live []string
		want       string
	}{
		"none live":      {"the first start", []string{"0s"}, nil, "0s"},
		"known live":     {"nothing twice", []string{"1h"}, nil, "1h0m0s"},
		"foreign, fresh": {"what another replica still serves may hang on it", []string{"5h9m"}, []string{"3h"}, "3h0m0s 5h9m0s"},
		"foreign, old":   {"the bundle is exactly ours in the end", []string{"5h10m"}, []string{"3h"}, "5h10m0s"},
		"expired":        {"an expired one is of no use", []string{"0s"}, []string{"24h"}, "0s"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			have := cas(t, tc.have...)
			live := certsOf(append(cas(t, tc.live...), have...))
			got := testLifetimes.bundle(noon, have, live)
			if diff := cmp.Diff(tc.want, ages(parseCerts(got))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if again := testLifetimes.bundle(noon, have, parseCerts(got)); string(again) != string(got) {
				t.Errorf("%s: the bundle of a right bundle differs", tc.reason)
			}
		})
	}
}

func TestNeedsLeaf(t *testing.T) {
	ca := cas(t, "1h", "1h")
	leaf := func(age time.Duration) *tls.Certificate {
		l, err := ca[0].sign(noon.Add(-age), testLifetimes.leaf, []string{dnsName})
		must(t, err)
		return l
	}
	tests := map[string]struct {
		leaf   *tls.Certificate
		signer authority
		want   bool
	}{
		"none":         {nil, ca[0], true},
		"new":          {leaf(0), ca[0], false},
		"before":       {leaf(199 * time.Minute), ca[0], false},
		"two thirds":   {leaf(200 * time.Minute), ca[0], true},
		"other signer": {leaf(0), ca[1], true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := needsLeaf(noon, tc.leaf, tc.signer); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestLeafEndsWithItsAuthority(t *testing.T) {
	ca := cas(t, "23h")[0]
	leaf, err := ca.sign(noon, testLifetimes.leaf, []string{dnsName})
	must(t, err)
	if !leaf.Leaf.NotAfter.Equal(ca.cert.NotAfter) {
		t.Errorf("the leaf ends %s, its authority %s", leaf.Leaf.NotAfter, ca.cert.NotAfter)
	}
}

func TestDecode(t *testing.T) {
	two := cas(t, "1h", "2h")
	good, err := encode(two)
	must(t, err)
	got, err := decode(good)
	must(t, err)
	if ages(certsOf(got)) != "1h0m0s 2h0m0s" || !got[1].key.Equal(two[1].key) {
		t.Errorf("decode(encode(x)) != x: %s", ages(certsOf(got)))
	}

	leaf, err := two[0].sign(noon, time.Hour, []string{dnsName})
	must(t, err)
	one, err := encode(two[:1])
	must(t, err)
	swapped, err := encode([]authority{{cert: two[0].cert, key: two[1].key}})
	must(t, err)
	notCA, err := encode([]authority{{cert: leaf.Leaf, key: two[0].key}})
	must(t, err)
	bad := map[string]map[string][]byte{
		"nothing":          nil,
		"no key":           {dataCerts: good[dataCerts]},
		"no certificate":   {dataKeys: good[dataKeys]},
		"a key is missing": {dataCerts: good[dataCerts], dataKeys: one[dataKeys]},
		"a key too many":   {dataCerts: one[dataCerts], dataKeys: good[dataKeys]},
		"garbage":          {dataCerts: []byte("x"), dataKeys: []byte("y")},
		"garbage key":      {dataCerts: one[dataCerts], dataKeys: []byte("-----BEGIN PRIVATE KEY-----\neHg=\n-----END PRIVATE KEY-----\n")},
		"another's key":    swapped,
		"not a CA":         notCA,
	}
	for name, data := range bad {
		t.Run(name, func(t *testing.T) {
			if got, err := decode(data); err == nil {
				t.Errorf("decoded %d authorities", len(got))
			}
		})
	}
}

// TestCreatedIsNotBefore holds that a CA is not taken for older than it is.
func TestCreatedIsNotBefore(t *testing.T) {
	for _, fraction := range []time.Duration{0, 1, time.Second - 1} {
		now := noon.Add(fraction)
		a, err := newAuthority(now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if late := a.created().Sub(now); late < 0 || late >= time.Second {
			t.Errorf("made %s after the second, created %s later", fraction, late)
		}
	}
}
