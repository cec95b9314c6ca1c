package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/elector-io/elector/cmd/internal/fitness"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/survey"
	"github.com/elector-io/elector/elector"
)

func TestSwitchoverRefusal(t *testing.T) {
	t.Parallel()
	lock := func(states ...fitness.State) *survey.Lock {
		l := &survey.Lock{Name: "web", Mode: elector.ModeLease, Leader: "web-0", Elected: true, Standbys: new(int), FitStandbys: new(int)}
		for i, state := range states {
			c := survey.Candidate{Name: "web-" + string(rune('0'+i)), State: state}
			if state != fitness.Fit {
				c.Why = "container app is not Ready"
			}
			l.Candidates = append(l.Candidates, c)
			if i > 0 {
				*l.Standbys++
				if c.Fit() {
					*l.FitStandbys++
				}
			}
		}
		return l
	}
	changed := func(l *survey.Lock, change func(*survey.Lock)) *survey.Lock {
		change(l)
		return l
	}
	fit, sick := fitness.Fit, fitness.Unready
	tests := map[string]struct {
		lock  *survey.Lock
		to    string
		force bool
		want  string
	}{
		"to anybody":             {lock: lock(fit, fit)},
		"to a fit one":           {lock: lock(fit, sick, fit), to: "web-2"},
		"from a sick one":        {lock: lock(sick, fit)},
		"nobody leads":           {lock: changed(lock(fit, fit), func(l *survey.Lock) { l.Leader = "" }), want: "nobody leads web, so nobody can hand it over: a fit candidate takes a free lock by itself"},
		"another program":        {lock: changed(lock(fit, fit), func(l *survey.Lock) { l.Elected = false }), force: true, want: "web-0, which leads web, was not elected by elector: it does not know of handovers"},
		"for life":               {lock: changed(lock(fit, fit), func(l *survey.Lock) { l.Mode = elector.ModeLeaderForLife })},
		"for life, to one":       {lock: changed(lock(fit, fit), func(l *survey.Lock) { l.Mode = elector.ModeLeaderForLife }), to: "web-1", force: true, want: `--to "web-1": in leader-for-life nobody can be chosen, whoever makes the lock anew leads: leave --to out`},
		"to the leader":          {lock: lock(fit, fit), to: "web-0", force: true, want: "web-0 leads web already"},
		"to a sick one":          {lock: lock(fit, sick), to: "web-1", want: "web-1 is not fit, container app is not Ready: --force hands over all the same"},
		"to a sick one by force": {lock: lock(fit, sick), to: "web-1", force: true},
		"to a stranger":          {lock: lock(fit, fit, fit), to: "db-0", force: true, want: `"db-0" does not contend for web, but web-1, web-2`},
		"all sick":               {lock: lock(fit, sick), want: "no standby of web is fit, `kubectl elector describe web` says why: --force hands over all the same"},
		"all sick by force":      {lock: lock(fit, sick), force: true},
		"alone":                  {lock: lock(fit), want: "nobody else contends for web: web-0 would lead again"},
		"alone, to one":          {lock: lock(fit), to: "web-1", force: true, want: "nobody else contends for web: web-0 would lead again"},
		"alone by force":         {lock: lock(fit), force: true},
		"blind":                  {lock: changed(lock(fit, fit), func(l *survey.Lock) { l.Standbys = nil }), want: "whether another candidate is fit is not known, because pods cannot be read: --force hands over all the same"},
		"blind by force":         {lock: changed(lock(fit, fit), func(l *survey.Lock) { l.Standbys = nil }), to: "web-1", force: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := (&switchover{to: test.to, force: test.force}).refusal(test.lock); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestSwitchoverExplain(t *testing.T) {
	t.Parallel()
	before := &survey.Lock{Name: "web", Leader: "web-0"}
	other, denied := errors.New("interrupted"), errors.New("you may not")
	for name, test := range map[string]struct {
		err, kept error
		now       *survey.Lock
		want      string
	}{
		"deaf": {errTimeout, nil, before, "web-0 did not hand web over within 1s, and the request is taken back: " +
			"its application has not ended its work, or its sidecar is too old or does not reach the API server; if it has read the request, it may still obey"},
		"deaf, and no way back": {errTimeout, denied, before, "web-0 did not hand web over within 1s, and the request could not be taken back, so it may still obey: you may not"},
		"nobody follows":        {errTimeout, nil, &survey.Lock{Name: "web"}, "web-0 handed web over, but nobody took it within 1s"},
		"interrupted":           {other, nil, before, "interrupted"},
		"interrupted for good":  {other, denied, before, "interrupted; the request could not be taken back: you may not"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := (&switchover{timeout: time.Second}).explain(test.err, test.now, before, test.kept); got.Error() != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	for user, want := range map[string]string{
		"alice":                     "kubectl: alice",
		"":                          "kubectl",
		strings.Repeat("é", 1000):   "kubectl: " + strings.Repeat("é", 123),
		strings.Repeat("<", 200):    "kubectl: " + strings.Repeat("<", 200),
		strings.Repeat("\x01", 200): "kubectl: " + strings.Repeat(`\x01`, 200)[:247],
	} {
		got := why(user)
		if got != want {
			t.Errorf("%.20s: %q, want %q", user, got, want)
		}
		request := elector.Handover{Token: 1<<64 - 1, To: strings.Repeat("x", 253), Why: got}
		if again, err := elector.ParseHandover(request.String()); again != request || err != nil {
			t.Errorf("the leader would read %+v, %v", again, err)
		}
	}
}
