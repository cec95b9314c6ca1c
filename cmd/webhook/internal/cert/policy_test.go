package cert

import (
	"bytes"
	"crypto/x509"
	"slices"
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

// seen is a live caBundle that has had all of them for a long time, or was found so.
func seen(in []authority) published {
	live := published{}
	for _, a := range in {
		live[string(a.cert.Raw)] = sight{since: noon.Add(-24 * time.Hour)}
	}
	return live
}

func TestPlan(t *testing.T) {
	const many = 100
	young := make([]string, many)
	for i := range young {
		young[i] = (time.Duration(i+1) * time.Second).String()
	}
	tests := map[string]struct {
		reason         string
		have, remember []string
		unseen         bool
		keep           string
		renew          bool
	}{
		"none":               {"the first start", nil, nil, false, "", true},
		"young":              {"nothing to do", []string{"1h"}, nil, false, "1h0m0s", false},
		"two thirds":         {"renewed with a third of its life to go", []string{"16h"}, nil, false, "16h0m0s", true},
		"expired":            {"who says that the clock is right", []string{"24h"}, nil, false, "24h0m0s", true},
		"expired, replaced":  {"something that is valid has long been signing", []string{"25h", "5h10m"}, nil, false, "5h10m0s", false},
		"expired, replacing": {"what is valid has not signed for long", []string{"25h", "5h9m"}, nil, false, "5h9m0s 25h0m0s", false},
		"future":             {"no API server accepts what it signs", []string{"-2h", "1h"}, nil, false, "1h0m0s", false},
		"future alone":       {"the same", []string{"-9000h"}, nil, false, "", true},
		"little ahead":       {"clocks differ by a little", []string{"-59m", "1h"}, nil, false, "-59m0s 1h0m0s", false},
		"overlap":            {"the old one is trusted as long as it may be in use", []string{"17h", "5h9m"}, nil, false, "5h9m0s 17h0m0s", false},
		"superseded":         {"nothing the old one signed is in use any more", []string{"17h", "5h10m"}, nil, false, "5h10m0s", false},
		"not published":      {"the newer one has never signed, however old it is", []string{"17h", "5h10m"}, nil, true, "5h10m0s 17h0m0s", false},
		"emptied":            {"which is how to renew the CA", nil, []string{"1h"}, false, "1h0m0s", true},
		"emptied again":      {"something fights for the Secret, the new one has to sign first", nil, []string{"9m", "1h"}, false, "9m0s 1h0m0s", false},
		"others":             {"what is served hangs on what was there", []string{"2h"}, []string{"1h"}, false, "1h0m0s 2h0m0s", false},
		"known and others":   {"what is gone from a Secret that is as it was is gone for a reason", []string{"1h"}, []string{"1h", "2h"}, false, "1h0m0s", false},
		"far too many":       {"the newest are enough", young, nil, false, "1s 2s 3s 4s 5s 6s 7s 8s", false},
		"expired among many": {"valid ones come first", append([]string{"16h", "24h"}, young[:7]...), nil, true, "1s 2s 3s 4s 5s 6s 7s 16h0m0s", false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			all := cas(t, append(slices.Clone(tc.have), tc.remember...)...)
			stored, remembered := all[:len(tc.have)], all[len(tc.have):]
			for i, a := range remembered { // of the same age is the same
				if n := slices.Index(tc.have, tc.remember[i]); n >= 0 {
					remembered[i] = stored[n]
				}
				_ = a
			}
			var live published
			if !tc.unseen {
				live = seen(all)
			}
			keep, renew := testLifetimes.plan(noon, stored, remembered, live)
			if got := ages(certsOf(keep)); got != tc.keep || renew != tc.renew {
				t.Errorf("%s: keep %q renew %v, want %q %v", tc.reason, got, renew, tc.keep, tc.renew)
			}
		})
	}
}

// TestPlanKeepsPublished holds that a hand that puts in far too many CAs does not
// put out the one that everything hangs on.
func TestPlanKeepsPublished(t *testing.T) {
	ours := cas(t, "1h")
	var others []authority
	for range 100 {
		others = append(others, cas(t, "1m")...)
	}
	keep, _ := testLifetimes.plan(noon, others, ours, seen(ours))
	if len(keep) != maxAuthorities || !holds(keep, ours[0]) {
		t.Errorf("keeps %s", ages(certsOf(keep)))
	}
}

// TestPlanShortLived holds that a CA is renewed in time that a hand made for less
// than what ours are backdated by.
func TestPlanShortLived(t *testing.T) {
	for age, want := range map[time.Duration]bool{19 * time.Minute: false, 20 * time.Minute: true} {
		short := authority{cert: &x509.Certificate{Raw: []byte("short"), NotBefore: noon.Add(-age), NotAfter: noon.Add(30*time.Minute - age)}}
		if _, renew := testLifetimes.plan(noon, []authority{short}, nil, nil); renew != want {
			t.Errorf("after %s of 30m renewed: %v, want %v", age, renew, want)
		}
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
		"expired":             {"it is kept, but signs nothing", []string{"1m", "24h"}, []int{0, 1}, "1m0s"},
		"future":              {"nobody would accept it", []string{"-2h", "1m"}, []int{0, 1}, "1m0s"},
		"none is valid":       {"nothing is better than what is served", []string{"-2h", "24h"}, []int{0, 1}, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			have := cas(t, tc.have...)
			live := published{}
			for _, i := range tc.trusted {
				live[string(have[i].cert.Raw)] = sight{since: noon, found: true}
			}
			got := ""
			if a, ok := testLifetimes.signer(noon, have, live); ok {
				got = ages([]*x509.Certificate{a.cert})
			}
			if got != tc.want {
				t.Errorf("%s: signer is %s old, want %s", tc.reason, got, tc.want)
			}
		})
	}
}

func TestBundle(t *testing.T) {
	tests := map[string]struct {
		reason     string
		have, live []string
		serve      bool // what is served is signed by the last one live
		fresh      bool // all are live for a moment only
		want       string
	}{
		"none live":       {"the first start", []string{"0s"}, nil, false, true, "0s"},
		"known live":      {"nothing twice", []string{"1h"}, nil, false, false, "1h0m0s"},
		"foreign, fresh":  {"what another replica still serves may hang on it", []string{"5h9m"}, []string{"3h"}, false, false, "3h0m0s 5h9m0s"},
		"foreign, old":    {"the bundle is exactly ours in the end", []string{"5h10m"}, []string{"3h"}, false, false, "5h10m0s"},
		"foreign, put in": {"ours was put in a moment ago, though it is old", []string{"5h10m"}, []string{"3h"}, false, true, "3h0m0s 5h10m0s"},
		"foreign, served": {"what is served hangs on it", []string{"5h10m"}, []string{"3h"}, true, false, "3h0m0s 5h10m0s"},
		"expired":         {"who says that the clock is right", []string{"0s"}, []string{"24h"}, false, false, "0s 24h0m0s"},
		"future":          {"nothing hangs on it", []string{"0s"}, []string{"-2h"}, false, false, "0s"},
		"far too many":    {"and the one that counts is the oldest", []string{"1m"}, append(slices.Repeat([]string{"2m"}, 100), "3h"), true, true, "1m0s" + strings.Repeat(" 2m0s", maxBundle-2) + " 3h0m0s"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			have, others := cas(t, tc.have...), cas(t, tc.live...)
			var leaf *x509.Certificate
			if tc.serve {
				signed, err := others[len(others)-1].sign(noon, testLifetimes.leaf, []string{dnsName})
				must(t, err)
				leaf = signed.Leaf
			}
			all := slices.Concat(others, have)
			live := seen(all)
			if tc.fresh {
				live = published{}.update(certsOf(all), noon)
			}
			got := testLifetimes.bundle(noon, have, live, certsOf(all), leaf)
			if diff := cmp.Diff(tc.want, ages(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if again := testLifetimes.bundle(noon, have, live, got, leaf); !slices.EqualFunc(again, got, (*x509.Certificate).Equal) {
				t.Errorf("%s: the bundle of a right bundle differs", tc.reason)
			}
		})
	}
}

func TestReplace(t *testing.T) {
	ca := cas(t, "6h", "1h", "1m")
	old, settled, unsettled := ca[0], ca[1], ca[2]
	leaf := func(by authority, age time.Duration) *x509.Certificate {
		l, err := by.sign(noon.Add(-age), testLifetimes.leaf, []string{dnsName})
		must(t, err)
		return l.Leaf
	}
	all := certsOf(ca)
	tests := map[string]struct {
		reason  string
		leaf    *x509.Certificate
		signer  authority
		trusted []*x509.Certificate
		want    bool
	}{
		"none":                    {"anything is better", nil, unsettled, nil, true},
		"new":                     {"nothing to do", leaf(old, 0), old, all, false},
		"before":                  {"nothing to do yet", leaf(old, 199*time.Minute), old, all, false},
		"two thirds":              {"time to renew", leaf(old, 200*time.Minute), old, all, true},
		"two thirds, cut off":     {"whoever trusts the old one trusts the new one", leaf(old, 200*time.Minute), old, nil, true},
		"settled":                 {"everybody trusts the new CA", leaf(old, 0), settled, all, true},
		"not settled":             {"not everybody does yet", leaf(old, 0), unsettled, all, false},
		"cut off":                 {"who knows", leaf(old, 0), settled, nil, false},
		"expired":                 {"anything is better", leaf(old, 5*time.Hour), unsettled, nil, true},
		"future":                  {"anything is better", leaf(old, -2*time.Hour), unsettled, all, true},
		"future, its signer":      {"the same: the API server's clock was set back", leaf(old, -2*time.Hour), old, all, true},
		"not trusted":             {"the signer is", leaf(old, 0), unsettled, all[1:], true},
		"neither trusted":         {"writing the bundle failed: the next try may succeed", leaf(old, 0), unsettled, all[1:2], false},
		"nothing trusted":         {"the same", leaf(old, 0), settled, []*x509.Certificate{}, false},
		"two thirds, other signs": {"it is still good", leaf(old, 200*time.Minute), unsettled, all, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := testLifetimes.replace(noon, tc.leaf, tc.signer, seen(ca), tc.trusted, []string{dnsName}); got != tc.want {
				t.Errorf("%s: got %v, want %v", tc.reason, got, tc.want)
			}
		})
	}
}

// TestUpdate holds that a clock of the API server's that was ahead does not keep a
// CA from settling.
func TestUpdate(t *testing.T) {
	a := cas(t, "1h")
	live := published{}.update(certsOf(a), noon.Add(1000*time.Hour)).update(certsOf(a), noon)
	if !testLifetimes.settled(noon.Add(testLifetimes.settle()), a[0], live) {
		t.Error("it has not settled")
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
	names := []string{dnsName}
	two := cas(t, "1h", "2h")
	good, err := encode(two)
	must(t, err)
	got, flaw := decode(good, nil, names)
	must(t, flaw)
	if ages(certsOf(got)) != "1h0m0s 2h0m0s" || !got[1].key.Equal(two[1].key) {
		t.Errorf("decode(encode(x)) != x: %s", ages(certsOf(got)))
	}

	leaf, err := two[0].sign(noon, time.Hour, names)
	must(t, err)
	one, err := encode(two[:1])
	must(t, err)
	of := func(in ...authority) map[string][]byte {
		data, err := encode(in)
		must(t, err)
		return data
	}
	odd := func(change func(*x509.Certificate)) authority {
		key, serial, err := newKey()
		must(t, err)
		template := &x509.Certificate{
			SerialNumber: serial, NotBefore: noon, NotAfter: noon.Add(time.Hour), KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		}
		change(template)
		c, err := signed(template, template, key, key)
		must(t, err)
		return authority{c, key}
	}
	var many []authority
	for range 100 {
		many = append(many, two[0])
	}
	garbageKey := []byte("-----BEGIN PRIVATE KEY-----\neHg=\n-----END PRIVATE KEY-----\n")
	const number = "ca.crt and ca.key do not hold the same number of certificates and keys, or none"
	bad := map[string]struct {
		reason string
		data   map[string][]byte
		want   int // authorities of use
		flaw   string
	}{
		"nothing":           {"the chart's", nil, 0, number},
		"no key":            {"somebody hides it", map[string][]byte{dataCerts: good[dataCerts]}, 0, number},
		"no certificate":    {"a hand", map[string][]byte{dataKeys: good[dataKeys]}, 0, "key 1 in ca.key: it has no CA certificate in ca.crt"},
		"a key is missing":  {"the other is good", map[string][]byte{dataCerts: good[dataCerts], dataKeys: one[dataKeys]}, 1, number},
		"a key too many":    {"the other is good", map[string][]byte{dataCerts: one[dataCerts], dataKeys: good[dataKeys]}, 1, "key 2 in ca.key: it has no CA certificate in ca.crt"},
		"garbage":           {"a hand", map[string][]byte{dataCerts: []byte("x"), dataKeys: []byte("y")}, 0, number},
		"a megabyte":        {"as large as can be", map[string][]byte{dataCerts: bytes.Repeat([]byte("-----BEGIN CERTIFICATE-----\n"), 40_000), dataKeys: nil}, 0, number},
		"garbage key":       {"a hand", map[string][]byte{dataCerts: one[dataCerts], dataKeys: garbageKey}, 0, "key 1 in ca.key: asn1: structure error"},
		"garbage and a key": {"the second is good", map[string][]byte{dataCerts: one[dataCerts], dataKeys: append(slices.Clone(garbageKey), one[dataKeys]...)}, 1, "key 1 in ca.key: asn1: structure error"},
		"another's key":     {"it would sign what nobody trusts", of(authority{cert: two[0].cert, key: two[1].key}), 0, "key 1 in ca.key: it has no CA certificate in ca.crt"},
		"not a CA":          {"it cannot sign", of(authority{cert: leaf.Leaf, key: two[0].key}), 0, "key 1 in ca.key: it has no CA certificate in ca.crt"},
		"may not sign":      {"its usage forbids it", of(odd(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })), 0, "key 1 in ca.key: x509: certificate signed by unknown authority"},
		"clients alone":     {"its usage forbids servers", of(odd(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })), 0, "key 1 in ca.key: x509: certificate specifies an incompatible key usage"},
		"other names":       {"it may sign, but not for this one", of(odd(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} })), 0, "key 1 in ca.key: x509: "},
		"100 CAs":           {"the first are enough", of(many...), 1, "ca.key holds more than 32 keys"},
	}
	for name, tc := range bad {
		t.Run(name, func(t *testing.T) {
			got, flaw := decode(tc.data, nil, names)
			if len(got) != tc.want || flaw == nil || !strings.HasPrefix(flaw.Error(), tc.flaw) {
				t.Errorf("%s: decoded %d authorities, %v; want %d, %s", tc.reason, len(got), flaw, tc.want, tc.flaw)
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
