package sim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/elector-io/elector/elector"
)

func get(h http.Handler, method, path string) (code int, body string) {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(method, path, nil))
	return rec.Code, rec.Body.String()
}

func TestHTTP(t *testing.T) {
	onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
		leader, standby := s.leaderAndStandby()
		want := func(p *pod, method, path string, wantCode int, wantBody string) {
			t.Helper()
			h := elector.AppHandler(p.process.e)
			if path == "/healthz" {
				h = elector.HealthHandler(p.process.e)
			}
			if code, body := get(h, method, path); code != wantCode || !strings.Contains(body, wantBody) {
				t.Errorf("%s %s of %s: %d %q, want %d %q", method, path, p.name, code, body, wantCode, wantBody)
			}
		}
		want(leader, "GET", "/", 200, `{"name":"web-0"}`)
		want(standby, "GET", "/", 200, `{"name":"web-0"}`)
		want(leader, "GET", "/leader", 200, "leader")
		want(standby, "GET", "/leader", 503, "standby")
		want(leader, "GET", "/status", 200, `"role":"leader","identity":"web-0_uid-1","leader":"web-0","lock":"web","namespace":"default","mode":"lease","fencingToken":`)
		want(standby, "GET", "/status", 200, `"role":"standby","identity":"web-1_`)
		want(standby, "GET", "/healthz", 200, "ok")
		want(leader, "GET", "/resign", 405, "")
		want(leader, "GET", "/nothing", 404, "")
		want(standby, "POST", "/resign", 204, "") // it does not lead, and goes on not to
		want(leader, "POST", "/resign", 204, "")
		want(leader, "GET", "/leader", 503, "standby")
		s.wantLeader(standby, "after the resignation")
		want(leader, "GET", "/", 200, `{"name":"web-1"}`)
	})
}

// TestStuckLoop hangs the loop in the status directory's write.
func TestStuckLoop(t *testing.T) {
	onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
		release := make(chan struct{})
		leader, standby := s.leaderAndStandby()
		s.hook(func() {
			s.onAnnounce = func(p *pod, _ elector.Status) error {
				if p == leader {
					<-release
				}
				return nil
			}
		})
		app, health := elector.AppHandler(leader.process.e), elector.HealthHandler(leader.process.e)
		time.Sleep(5 * time.Second) // the next renewal is told, and hangs
		if code, _ := get(health, "GET", "/healthz"); code != 200 {
			t.Errorf("/healthz after a moment: %d", code)
		}
		time.Sleep(s.settings.RenewDeadline)
		if code, _ := get(app, "GET", "/leader"); code != 503 {
			t.Errorf("/leader of a stuck loop: %d", code)
		}
		if code, body := get(app, "GET", "/status"); strings.Contains(body, `"leader",`) {
			t.Errorf("/status of a stuck loop: %d %s", code, body)
		}
		time.Sleep(10 * time.Second)
		if code, body := get(health, "GET", "/healthz"); code != 503 || !strings.Contains(body, "has not made a step") {
			t.Errorf("/healthz of a stuck loop: %d %s", code, body)
		}
		time.Sleep(s.settings.LeaseDuration)
		s.wantLeader(standby, "after the stuck leader's lease ran out")
		close(release)
		s.hook(func() { s.onAnnounce = nil })
		s.wantStandby(leader, "when it goes on")
		if code, _ := get(health, "GET", "/healthz"); code != 200 {
			t.Errorf("/healthz of a loop that goes on: %d", code)
		}
	})
}

// TestUntoldIsNoClaim fails the status directory.
func TestUntoldIsNoClaim(t *testing.T) {
	for _, mode := range []elector.Mode{elector.ModeLease, elector.ModeLeaderForLife} {
		t.Run(string(mode), func(t *testing.T) {
			onStage(t, mode, func(_ *testing.T, s *stage) {
				full := true
				s.hook(func() {
					s.onAnnounce = func(p *pod, status elector.Status) error {
						if full && p.name == "web-0" && status.Role == elector.RoleLeader {
							return errors.New("no space left on device")
						}
						return nil
					}
				})
				broken := s.candidate("web-0")
				time.Sleep(5 * time.Minute)
				s.wantStandby(broken, "and can't tell anybody")
				sound := s.candidate("web-1")
				time.Sleep(time.Minute)
				s.wantLeader(sound, "beside one that can't tell anybody")
				s.hook(func() { full = false })
				s.terminate(sound)
				s.deletePod(sound, true)
				time.Sleep(s.settings.LeaseDuration)
				s.wantLeader(broken, "when it can tell")
			})
		})
	}
	t.Run("withdrawing fails", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
			broken := false
			leader, standby := s.leaderAndStandby()
			s.hook(func() {
				s.onAnnounce = func(p *pod, status elector.Status) error {
					if broken && p == leader && status.Role == elector.RoleStandby {
						return errors.New("read-only file system")
					}
					return nil
				}
			})
			s.hook(func() { broken = true })
			if err := leader.process.e.Resign(t.Context()); err == nil {
				t.Error("Resign reports success while the leader file is still there")
			}
			if holder := s.spec()["holderIdentity"]; holder != leader.identity() {
				t.Errorf("the lock went to %q while the leader file is still there", holder)
			}
			s.hook(func() { broken = false })
			time.Sleep(3 * time.Second)
			s.wantLeader(standby, "when the leader file is gone")
		})
	})
}

func TestEvents(t *testing.T) {
	onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
		leader, standby := s.leaderAndStandby()
		reader, writer := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		s.tasks.Go(func() {
			req := httptest.NewRequestWithContext(ctx, "GET", "/events", nil)
			elector.AppHandler(standby.process.e).ServeHTTP(&flusher{Writer: writer, header: http.Header{}}, req)
			_ = writer.Close()
		})
		roles := make(chan elector.Status)
		s.tasks.Go(func() {
			defer close(roles)
			all, _ := io.ReadAll(reader)
			for line := range strings.Lines(string(all)) {
				data, ok := strings.CutPrefix(line, "data: ")
				if !ok {
					continue
				}
				var status elector.Status
				if err := json.Unmarshal([]byte(data), &status); err != nil {
					t.Error(err)
				}
				roles <- status
			}
		})
		time.Sleep(time.Minute) // renewals are no events
		s.terminate(leader)
		s.wantLeader(standby, "after the handover")
		standby.cutOff()
		time.Sleep(time.Minute) // its claim runs out
		cancel()
		var got []string
		for status := range roles {
			got = append(got, string(status.Role)+" of "+status.Leader)
		}
		// Between the holder's release and its own claim nobody leads.
		want := "standby of web-0, standby of , leader of web-1, standby of "
		if strings.Join(got, ", ") != want {
			t.Errorf("events: %s\nwant:   %s", strings.Join(got, ", "), want)
		}
	})
}

type flusher struct {
	io.Writer
	header http.Header
}

func (f *flusher) Header() http.Header { return f.header }
func (f *flusher) WriteHeader(int)     {}
func (f *flusher) Flush()              {}

func TestMetrics(t *testing.T) {
	onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
		leader, standby := s.leaderAndStandby()
		s.terminate(leader)
		s.wantLeader(standby, "after the handover")
		time.Sleep(time.Minute)
		if err := standby.process.e.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		_, body := get(elector.HealthHandler(standby.process.e), "GET", "/metrics")
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(body))
		if err != nil {
			t.Fatalf("%v\n%s", err, body)
		}
		value := func(name string, labels ...string) float64 {
			for _, m := range families[name].GetMetric() {
				var have []string
				for _, l := range m.GetLabel() {
					have = append(have, l.GetValue())
				}
				if len(labels) == 0 || strings.Join(have, " ") == strings.Join(labels, " ") {
					return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
				}
			}
			return -1
		}
		for _, tc := range []struct {
			name     string
			got      float64
			min, max float64
		}{
			{"is_leader", value("elector_is_leader"), 1, 1},
			{"seconds left", value("elector_claim_seconds_left"), 5, 10},
			{"claims", value("elector_claims_total"), 2, 2},
			{"resigned", value("elector_claim_losses_total", "resigned"), 1, 1},
			{"expired", value("elector_claim_losses_total", "expired"), 0, 0},
			{"puts", value("elector_api_requests_total", "put", "200"), 20, 50},
			{"renewals", value("elector_renew_duration_seconds"), 20, 50},
			{"handovers", value("elector_handover_duration_seconds"), 1, 1},
			{"token", value("elector_fencing_token"), 1000, 1e6},
		} {
			if tc.got < tc.min || tc.got > tc.max {
				t.Errorf("%s is %g, want %g to %g\n%s", tc.name, tc.got, tc.min, tc.max, body)
			}
		}
	})
}

// TestCallbacks holds the promises of Callbacks.
func TestCallbacks(t *testing.T) {
	onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
		var log []string
		say := func(what string) { s.hook(func() { log = append(log, what) }) }
		leads := false
		slow := make(chan struct{})
		s.callbacks = elector.Callbacks{
			OnStartedLeading: func(ctx context.Context) {
				say("started")
				<-ctx.Done()
				say("context ended")
				<-slow
				say("returned")
			},
			OnStoppedLeading: func() { say("stopped") },
		}
		p := s.candidate("web-0")
		s.wantLeader(p, "after start")
		s.callbacks = elector.Callbacks{OnStoppedLeading: func() {
			s.hook(func() {
				if !leads {
					t.Error("OnStoppedLeading of one that never led")
				}
			})
		}}
		other := s.candidate("web-1")
		time.Sleep(time.Minute)
		ended := make(chan struct{})
		go func() { s.terminate(p); close(ended) }()
		time.Sleep(time.Second)
		if holder := s.spec()["holderIdentity"]; holder != p.identity() {
			t.Errorf("the lock is %q's while OnStartedLeading still works", holder)
		}
		close(slow)
		<-ended
		s.hook(func() { leads = true })
		s.wantLeader(other, "after OnStartedLeading returned")
		synctest.Wait()
		s.mu.Lock()
		got := strings.Join(log, ", ")
		s.mu.Unlock()
		if got != "started, stopped, context ended, returned" && got != "started, context ended, stopped, returned" {
			t.Errorf("callbacks: %s", got)
		}
	})
}
