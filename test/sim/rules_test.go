package sim

import (
	"context"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/elector-io/elector/elector"
)

// The seventeen safety rules of the design, one test each, on the real engine and
// the real locks in virtual time. docs/safety.md explains the rules.

// stage is a world without accidents but those that a test stages.
type stage struct {
	*world
	t *testing.T
}

// onStage runs play in a bubble and checks afterwards that nothing was violated.
func onStage(t *testing.T, mode elector.Mode, play func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		settings := elector.DefaultSettings()
		settings.Lock, settings.Mode = lockName, mode
		s := &stage{newWorld(1, rand.New(rand.NewPCG(1, 1)), settings), t}
		stop := s.checkOften()
		play(t, s)
		for _, p := range s.allPods() {
			s.kill(p)
			s.hook(p.closeGate)
		}
		stop()
		s.troubles.Wait()
		s.tasks.Wait()
		for _, v := range s.violations {
			t.Error(v)
		}
		if t.Failed() {
			for _, line := range s.trace {
				t.Log(line)
			}
		}
	})
}

// candidate starts a pod on a machine of its own.
func (s *stage) candidate(name string) *pod {
	p := s.addPod(name, newNode(1))
	s.startProcess(p)
	return p
}

// leaderAndStandby starts two candidates and lets the first lead.
func (s *stage) leaderAndStandby() (leader, standby *pod) {
	leader = s.candidate("web-0")
	s.wantLeader(leader, "after start")
	standby = s.candidate("web-1")
	time.Sleep(time.Second)
	s.wantStandby(standby, "beside a leader")
	return leader, standby
}

func (p *pod) leads() bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.file != nil && p.process != nil && p.process.e.IsLeader()
}

// wantLeader waits a moment for p to lead.
func (s *stage) wantLeader(p *pod, when string) {
	s.t.Helper()
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
	if !p.leads() {
		s.t.Errorf("%s does not lead %s", p.name, when)
	}
}

func (s *stage) wantStandby(p *pod, when string) {
	s.t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.file != nil || p.process != nil && p.process.e.IsLeader() {
		s.t.Errorf("%s leads %s", p.name, when)
	}
}

func (p *pod) disturbed(f faults) {
	p.process.link.mu.Lock()
	defer p.process.link.mu.Unlock()
	p.process.link.faults = f
}

func (p *pod) cutOff()  { p.disturbed(faults{cutOut: true, cutIn: true}) }
func (p *pod) connect() { p.disturbed(faults{}) }

// spec returns the Lease's spec, nil without a Lease.
func (s *stage) spec() map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.api.objects["leases/"+lockName]
	if o == nil {
		return nil
	}
	spec, _ := o.clone()["spec"].(map[string]any)
	return spec
}

// edit changes the lock as a person would.
func (s *stage) edit(resource string, change func(o object)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	o := s.api.objects[resource+"/"+lockName].clone()
	change(o)
	if _, err := s.api.update(resource, lockName, o); err != nil {
		s.t.Fatal(err)
	}
}

func (p *pod) status() elector.Status { return p.process.e.Status() }

func TestRule01ClaimInsideLease(t *testing.T) {
	t.Run("counted from when the renewal was sent", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
			leader, standby := s.leaderAndStandby()
			leader.disturbed(faults{slowIn: 3 * time.Second}) // every answer takes three seconds
			time.Sleep(20 * time.Second)
			before := *leader.status().Renewed
			for before.Equal(*leader.status().Renewed) {
				time.Sleep(time.Millisecond)
			}
			renewed := *leader.status().Renewed // just answered; the next is not sent yet
			if since := time.Since(renewed); since < 3*time.Second {
				t.Errorf("renewed %v ago, but answers take longer", since)
			}
			leader.cutOff()
			end := renewed.Add(s.settings.RenewDeadline)
			time.Sleep(time.Until(end) - 10*time.Millisecond)
			if !leader.leads() {
				t.Error("the claim ended early")
			}
			time.Sleep(11 * time.Millisecond)
			s.wantStandby(leader, "after renew-deadline")
			takeover := renewed.Add(s.settings.LeaseDuration)
			time.Sleep(time.Until(takeover))
			s.wantStandby(standby, "before lease-duration is over")
			time.Sleep(3 * time.Second) // it saw the renewal later than that was sent
			s.wantLeader(standby, "after lease-duration")
		})
	})
	t.Run("suspended machine", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
			leader, standby := s.leaderAndStandby()
			leader.node.suspend()
			time.Sleep(20 * time.Second)
			s.wantLeader(standby, "after the leader's machine was suspended")
			if leader.process.e.IsLeader() {
				t.Error("a suspended leader answers that it leads")
			}
			leader.node.resume()
			s.wantStandby(leader, "after waking")
		})
	})
	t.Run("clocks at different rates", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(_ *testing.T, s *stage) {
			slow := s.addPod("slow", newNode(1))
			s.startProcess(slow)
			s.wantLeader(slow, "after start")
			fast := s.addPod("fast", newNode(1.499)) // the ratio may be below 15/10
			s.startProcess(fast)
			time.Sleep(30 * time.Second)
			slow.cutOff()
			time.Sleep(20 * time.Second)
			s.wantLeader(fast, "after its lease-duration")
		})
	})
}

func TestRule02DemoteThenRelease(t *testing.T) {
	for _, how := range []string{"stop", "resign"} {
		t.Run(how, func(t *testing.T) {
			onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
				leader, standby := s.leaderAndStandby()
				s.hook(func() {
					s.onAnnounce = func(p *pod, _ elector.Status) error {
						if p == leader {
							time.Sleep(50 * time.Millisecond) // the release must not overtake a slow disk
						}
						return nil
					}
				})
				released := false
				s.mu.Lock()
				s.api.onWrite = func(c change) {
					spec, _ := c.object["spec"].(map[string]any)
					if released || spec["holderIdentity"] != "" {
						return
					}
					released = true
					if leader.file != nil || leader.process.e.IsLeader() {
						t.Error("the lock is free and its last holder still claims")
					}
				}
				s.mu.Unlock()
				if how == "stop" {
					s.terminate(leader)
				} else if err := leader.process.e.Resign(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.wantLeader(standby, "after the release")
				if !released {
					t.Error("nothing was released")
				}
			})
		})
	}
}

func TestRule03ReleaseOnlyMine(t *testing.T) {
	onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
		leader, standby := s.leaderAndStandby()
		// The leader's machine is suspended between two renewals until another one
		// leads, and the first thing that it is told after waking is to end.
		time.Sleep(time.Second)
		leader.node.suspend()
		time.Sleep(20 * time.Second)
		s.wantLeader(standby, "after takeover")
		before := standby.status().FencingToken
		s.mu.Lock()
		s.api.onWrite = func(c change) {
			spec, _ := c.object["spec"].(map[string]any)
			if spec["holderIdentity"] != standby.identity() {
				t.Errorf("the old leader, as it leaves, makes %q the holder", spec["holderIdentity"])
			}
		}
		s.mu.Unlock()
		releases := 0
		s.hook(func() {
			s.onRequest = func(p *pod, req *http.Request) {
				if p == leader && req.Method == http.MethodPut {
					releases++
				}
			}
		})
		leader.disturbed(faults{stall: true}) // it has not heard of its successor
		leader.process.cancel()
		leader.node.resume()
		s.terminate(leader)
		if releases == 0 {
			t.Error("it did not try to release what it took for its own")
		}
		s.wantLeader(standby, "after the old leader left")
		if got := standby.status().FencingToken; got != before {
			t.Errorf("the successor's token went from %d to %d: it lost its lock for a moment", before, got)
		}
	})
}

func TestRule04StepDownOnSight(t *testing.T) {
	const sight = 10 * time.Millisecond
	for name, change := range map[string]func(s *stage){
		"another holder": func(s *stage) {
			s.edit("leases", func(o object) { o["spec"].(map[string]any)["holderIdentity"] = "human" })
		},
		"empty holder": func(s *stage) {
			s.edit("leases", func(o object) { o["spec"].(map[string]any)["holderIdentity"] = "" })
		},
		"deleted": func(s *stage) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.erase()
			if err := s.api.remove("leases", lockName, "", ""); err != nil {
				s.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
				leader, _ := s.leaderAndStandby()
				began := time.Now()
				before := leader.status().FencingToken
				change(s)
				for leader.status().FencingToken == before {
					time.Sleep(100 * time.Microsecond)
					if time.Since(began) > time.Minute {
						t.Fatal("it never steps down")
					}
				}
				if d := time.Since(began); d > sight {
					t.Errorf("it took %v to step down", d)
				}
			})
		})
	}
	t.Run("owner reference edited", func(t *testing.T) {
		onStage(t, elector.ModeLeaderForLife, func(_ *testing.T, s *stage) {
			leader, _ := s.leaderAndStandby()
			s.edit("configmaps", func(o object) {
				o.metadata()["ownerReferences"] = []any{map[string]any{"apiVersion": "v1", "kind": "Pod", "name": "human", "uid": "human"}}
			})
			time.Sleep(sight)
			s.wantStandby(leader, "after its lock was given away")
		})
	})
}

func TestRule05IdentityIsNameAndUID(t *testing.T) {
	onStage(t, elector.ModeLeaderForLife, func(_ *testing.T, s *stage) {
		old := s.candidate("web-0")
		s.wantLeader(old, "after start")
		s.kill(old)
		s.mu.Lock()
		old.deleted, old.file = true, nil
		s.pods = nil // gone, but the garbage collector has not come by
		s.mu.Unlock()
		recreated := s.candidate("web-0")
		time.Sleep(time.Minute)
		s.wantStandby(recreated, "on the lock of a dead Pod of its name")
		s.mu.Lock()
		delete(s.api.pods, old.uid)
		s.api.collect()
		s.mu.Unlock()
		s.wantLeader(recreated, "after the garbage collector came by")
	})
}

func TestRule06NoStaleClaimSurvivesRestart(t *testing.T) {
	for _, mode := range []elector.Mode{elector.ModeLease, elector.ModeLeaderForLife} {
		t.Run(string(mode), func(t *testing.T) {
			onStage(t, mode, func(t *testing.T, s *stage) {
				leader, _ := s.leaderAndStandby()
				s.kill(leader)
				if leader.file == nil {
					t.Fatal("SIGKILL does not remove files")
				}
				requestsAtFirst := -1
				s.hook(func() {
					s.onAnnounce = func(p *pod, _ elector.Status) error {
						if requestsAtFirst < 0 && p == leader {
							requestsAtFirst = p.process.link.sent()
						}
						return nil
					}
				})
				s.startProcess(leader)
				s.wantLeader(leader, "after its restart")
				if requestsAtFirst != 0 {
					t.Errorf("%d requests were sent before the old claim was withdrawn", requestsAtFirst)
				}
			})
		})
	}
}

func TestRule07EveryRequestHasATimeout(t *testing.T) {
	onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
		leader, standby := s.leaderAndStandby()
		s.hook(func() {
			s.onRequest = func(p *pod, req *http.Request) {
				deadline, ok := req.Context().Deadline()
				until := p.status().ValidUntil
				switch {
				case !ok:
					t.Errorf("%s %s has no deadline", req.Method, req.URL)
				case p == leader && req.Method == http.MethodPut && until != nil && deadline.After(until.Add(time.Millisecond)):
					t.Errorf("a renewal may take until %v, the claim ends %v", deadline, until)
				}
			}
		})
		time.Sleep(time.Minute)
		leader.disturbed(faults{hang: true})
		time.Sleep(s.settings.RenewDeadline + time.Millisecond)
		s.wantStandby(leader, "after its requests hung for renew-deadline")
		time.Sleep(s.settings.LeaseDuration)
		s.wantLeader(standby, "after lease-duration")
	})
}

func TestRule08WholeSeconds(t *testing.T) {
	s := elector.DefaultSettings()
	s.Lock = lockName
	s.LeaseDuration, s.RenewDeadline, s.RetryPeriod = 1900*time.Millisecond, 1800*time.Millisecond, 200*time.Millisecond
	_, err := elector.New(elector.Config{Lock: noLock{elector.Description{Settings: s, Identity: "a"}}})
	var fe *elector.FieldError
	if !errors.As(err, &fe) || fe.Field != elector.FieldLeaseDuration {
		t.Errorf("a lease-duration of 1.9s: %v", err)
	}
}

type noLock struct{ candidate elector.Description }

func (l noLock) Describe() elector.Description { return l.candidate }

func (noLock) Observe(context.Context, func(elector.Record)) error { return errors.New("no lock") }
func (noLock) Put(context.Context, elector.Record, elector.Record) (elector.Record, error) {
	return elector.Record{}, errors.New("no lock")
}

func TestRule09NeverGiveUp(t *testing.T) {
	for _, code := range []int{403, 404, 409, 429, 500, 503} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
				p := s.addPod("web-0", newNode(1))
				s.initial = faults{always: code}
				s.startProcess(p)
				time.Sleep(10 * time.Minute)
				s.wantStandby(p, "while everything is refused")
				if sent := p.process.link.sent(); sent > 600 {
					t.Errorf("%d requests in ten minutes are no backoff", sent)
				}
				p.connect()
				time.Sleep(5 * s.settings.RetryPeriod) // the longest pauses of a reader and a writer
				s.wantLeader(p, "when nothing is refused any more")
			})
		})
	}
	t.Run("watch refused", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
			s.initial = faults{noWatch: true}
			leader := s.candidate("web-0")
			time.Sleep(time.Second) // a first refusal may pass
			s.wantLeader(leader, "when it was refused twice")
			standby := s.candidate("web-1")
			time.Sleep(time.Minute)
			s.wantLeader(leader, "while it polls")
			s.terminate(leader)
			time.Sleep(s.settings.RetryPeriod)
			s.wantLeader(standby, "after a poll")
			standby.connect()
			third := s.candidate("web-2")
			third.connect()
			time.Sleep(2 * time.Minute)
			before := third.process.link.sent()
			time.Sleep(4 * time.Minute)
			if sent := third.process.link.sent() - before; sent > 1 {
				t.Errorf("%d requests: it does not watch although it may", sent)
			}
		})
	})
}

// TestLeavingDenied holds that a candidate whose permissions went before it does is not waited for: a namespace that is deleted loses
// its RoleBindings first.
func TestLeavingDenied(t *testing.T) {
	for _, code := range []int{401, 403, 503} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
				leader, standby := s.leaderAndStandby()
				leader.disturbed(faults{always: code})
				begun := time.Now()
				s.terminate(leader)
				took, want := time.Since(begun), s.settings.RetryPeriod
				if code == 503 { // that passes
					want = s.settings.RenewDeadline
				}
				if took < want || took > want+time.Second {
					t.Errorf("left after %s, want %s", took, want)
				}
				time.Sleep(s.settings.LeaseDuration)
				s.wantLeader(standby, "after the lease has run out")
			})
		})
	}
}

func TestRule10FencingToken(t *testing.T) {
	for _, mode := range []elector.Mode{elector.ModeLease, elector.ModeLeaderForLife} {
		t.Run(string(mode), func(t *testing.T) {
			onStage(t, mode, func(t *testing.T, s *stage) { // the world checks every claim's token
				a, b := s.leaderAndStandby()
				token := a.status().FencingToken
				s.kill(a) // a second after it acquired
				s.startProcess(a)
				s.wantLeader(a, "after its first restart")
				if got := a.status().FencingToken; got != token {
					t.Errorf("the token changed from %d to %d by an early restart", token, got)
				}
				time.Sleep(30 * time.Second)
				if got := a.status().FencingToken; got != token {
					t.Errorf("the token changed from %d to %d by renewing", token, got)
				}
				s.kill(a)
				s.startProcess(a)
				s.wantLeader(a, "after its restart")
				if got := a.status().FencingToken; got != token {
					t.Errorf("the token changed from %d to %d by a restart", token, got)
				}
				if err := a.process.e.Resign(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.wantLeader(b, "after the resignation")
				s.mu.Lock()
				s.erase()
				for _, key := range s.api.keys() {
					o := s.api.objects[key]
					s.api.commit("DELETED", key, o.clone())
				}
				s.mu.Unlock()
				time.Sleep(time.Minute)
				s.hook(func() {
					if s.claims < 4 {
						t.Errorf("only %d claims", s.claims)
					}
				})
			})
		})
	}
}

func TestRule11RestartedSidecarIsNotADeadPod(t *testing.T) {
	onStage(t, elector.ModeLeaderForLife, func(t *testing.T, s *stage) {
		leader, standby := s.leaderAndStandby()
		s.terminate(leader)
		time.Sleep(5 * time.Minute)
		s.wantStandby(standby, "while the leader's Pod lives")
		s.startProcess(leader)
		s.wantLeader(leader, "after its restart")
		demoted := false
		s.mu.Lock()
		s.api.onWrite = func(c change) {
			if c.kind == "DELETED" {
				demoted = leader.file == nil && !leader.process.e.IsLeader()
			}
		}
		s.mu.Unlock()
		if err := leader.process.e.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.wantLeader(standby, "after the resignation")
		if !demoted {
			t.Error("the lock was deleted before the claim ended, or not at all")
		}
	})
}

// TestLateNews has a watch that says what is long over: that the lock was this
// candidate's, after it resigned.
func TestLateNews(t *testing.T) {
	onStage(t, elector.ModeLeaderForLife, func(t *testing.T, s *stage) {
		s.initial = faults{lag: 16 * time.Second} // longer than a resigned candidate holds back
		first := s.candidate("web-0")
		s.wantLeader(first, "after start")
		s.initial = faults{}
		second := s.candidate("web-1")
		time.Sleep(time.Second)
		if err := first.process.e.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.wantLeader(second, "after the resignation")
		time.Sleep(time.Minute)
		s.wantLeader(second, "after the late news")
	})
}

// emptied is what a hand makes of a Lease that it takes from its holder.
func emptied(o object) { o["spec"].(map[string]any)["holderIdentity"] = "" }

// handedTo is what `kubectl patch lease` makes of one.
func handedTo(p *pod) func(object) {
	return func(o object) { o["spec"].(map[string]any)["holderIdentity"] = p.identity() }
}

// lease is the Lease as it is.
func (s *stage) lease() object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.api.objects["leases/"+lockName].clone()
}

// putBack writes an old state of the lock, as a backup or `kubectl replace` does.
func (s *stage) putBack(resource string, old object) {
	s.edit(resource, func(o object) {
		version := o.version()
		maps.Copy(o, old.clone())
		o.metadata()["resourceVersion"] = strconv.FormatUint(version, 10)
	})
}

// TestRule12ErasedHolderMayNotKnow takes the lock from a leader that is cut off. The world sees it when two claim.
func TestRule12ErasedHolderMayNotKnow(t *testing.T) {
	for name, erase := range map[string]func(s *stage, gone *pod){
		"emptied": func(s *stage, _ *pod) { s.edit("leases", emptied) },
		"deleted": func(s *stage, _ *pod) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.erase()
			if err := s.api.remove("leases", lockName, "", ""); err != nil {
				s.t.Fatal(err)
			}
		},
	} {
		t.Run("seen, "+name, func(t *testing.T) {
			onStage(t, elector.ModeLease, func(_ *testing.T, s *stage) {
				leader, standby := s.leaderAndStandby()
				leader.cutOff()
				erase(s, leader)
				time.Sleep(s.settings.LeaseDuration - time.Second)
				s.wantStandby(standby, "while the erased leader may claim")
				time.Sleep(2 * time.Second)
				s.wantLeader(standby, "afterwards")
			})
		})
		t.Run("in a gap, "+name, func(t *testing.T) {
			onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
				first, second := s.leaderAndStandby()
				first.disturbed(faults{lossy: 1, stall: true}) // it hears nothing any more, and is heard
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_ = first.process.e.Resign(ctx)
				s.wantLeader(second, "after the resignation, whose answer was lost")
				second.cutOff()
				erase(s, second)
				first.connect()
				first.process.link.breakWatches()
				time.Sleep(s.settings.LeaseDuration - 2*time.Second) // the world looks for a second leader
				s.wantStandby(first, "while the leader that it has not seen may claim")
				time.Sleep(s.settings.LeaseDuration)
				s.wantLeader(first, "afterwards")
			})
		})
	}
}

// TestRule13ResumeOnlyWhatIsNoted names a candidate in the lock in every way but its own. The world checks tokens, and that no two
// claim.
func TestRule13ResumeOnlyWhatIsNoted(t *testing.T) {
	t.Run("handed to it by hand", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
			leader, standby := s.leaderAndStandby()
			time.Sleep(10 * time.Second)
			token := leader.status().FencingToken
			leader.cutOff()
			s.edit("leases", handedTo(standby))
			time.Sleep(s.settings.LeaseDuration - time.Second)
			s.wantStandby(standby, "though the lock names it")
			time.Sleep(2 * time.Second)
			s.wantLeader(standby, "after a lease-duration")
			if got := standby.status().FencingToken; got <= token {
				t.Errorf("token %d after %d", got, token)
			}
		})
	})
	for name, change := range map[string]func(s *stage, old object, first *pod){
		"an old Lease put back during a restart": func(s *stage, old object, _ *pod) { s.putBack("leases", old) },
		"a note forged during a restart": func(s *stage, old object, first *pod) {
			s.edit("leases", func(o object) {
				handedTo(first)(o)
				o["spec"].(map[string]any)["leaseTransitions"] = old["spec"].(map[string]any)["leaseTransitions"]
				o.metadata()["annotations"] = old.metadata()["annotations"]
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
				first, second := s.leaderAndStandby()
				time.Sleep(10 * time.Second)
				old, token := s.lease(), first.status().FencingToken
				s.kill(first)
				time.Sleep(2 * s.settings.LeaseDuration)
				s.wantLeader(second, "after the first was killed")
				second.cutOff()
				change(s, old, first)
				s.startProcess(first)
				time.Sleep(s.settings.LeaseDuration - time.Second)
				s.wantStandby(first, "though the lock names it as it once did")
				time.Sleep(2 * time.Second)
				s.wantLeader(first, "after a lease-duration")
				if got := first.status().FencingToken; got <= token {
					t.Errorf("token %d again, or less: it was %d", got, token)
				}
			})
		})
	}
	t.Run("a deletion still under way", func(t *testing.T) {
		onStage(t, elector.ModeLeaderForLife, func(t *testing.T, s *stage) {
			leader, standby := s.leaderAndStandby()
			leader.disturbed(faults{slowOut: 3 * time.Second})
			go func() { _ = leader.process.e.Resign(t.Context()) }()
			time.Sleep(time.Second)
			s.kill(leader) // its DELETE is under way
			s.startProcess(leader)
			s.wantLeader(leader, "after its restart")
			token := leader.status().FencingToken
			time.Sleep(5 * time.Second) // the DELETE arrives
			s.wantLeader(leader, "when the deletion came too late")
			if got := leader.status().FencingToken; got != token {
				t.Errorf("the token went from %d to %d: the lock was lost for a moment", token, got)
			}
			s.wantStandby(standby, "beside it")
		})
	})
}

// setBack restores the datastore to what it was when the object was the given one: versions go back, and watches end.
func (s *stage) setBack(resource string, old object) {
	s.mu.Lock()
	s.erase()
	s.api.version = old.version() + 1
	s.api.objects[resource+"/"+lockName] = old.clone()
	s.api.compact()
	s.mu.Unlock()
	for _, p := range s.allPods() {
		if p.process != nil {
			p.process.link.breakWatches()
		}
	}
}

func TestRule14LaterReadIsTheTruth(t *testing.T) {
	t.Run("a leader alone", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(_ *testing.T, s *stage) {
			leader := s.candidate("web-0")
			s.wantLeader(leader, "after start")
			old := s.lease()
			time.Sleep(time.Minute)
			s.setBack("leases", old)
			time.Sleep(s.settings.LeaseDuration + 5*time.Second)
			s.wantLeader(leader, "a lease-duration after the restore")
			s.terminate(leader)
			next := s.candidate("web-1")
			s.wantLeader(next, "after the leader that went on has left")
		})
	})
	t.Run("for life", func(t *testing.T) {
		onStage(t, elector.ModeLeaderForLife, func(t *testing.T, s *stage) {
			first, second := s.leaderAndStandby()
			s.mu.Lock()
			old := s.api.objects["configmaps/"+lockName].clone()
			s.mu.Unlock()
			if err := first.process.e.Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.wantLeader(second, "after the resignation")
			time.Sleep(time.Minute)
			s.setBack("configmaps", old)
			time.Sleep(s.settings.RetryPeriod)
			s.wantStandby(second, "whose lock the restore took")
			time.Sleep(s.settings.LeaseDuration)
			s.wantLeader(first, "whom the restore made the holder, in the end")
		})
	})
}

func TestRule15OneCandidateOneDescription(t *testing.T) {
	for name, d := range map[string]elector.Description{
		"nothing known of the Pod": {Settings: elector.Settings{Lock: lockName}, Identity: elector.Identity("", "")},
		"no UID":                   {Settings: elector.Settings{Lock: lockName}, Identity: elector.Identity("web-0", "")},
		"no name":                  {Settings: elector.Settings{Lock: lockName}, Identity: elector.Identity("", "uid")},
		"no identity":              {Settings: elector.Settings{Lock: lockName}},
		"no Pod to own the lock":   {Settings: elector.Settings{Lock: lockName, Mode: elector.ModeLeaderForLife}, Identity: "me"},
	} {
		_, err := elector.New(elector.Config{Lock: noLock{d}})
		if fe, ok := errors.AsType[*elector.FieldError](err); !ok || fe.Field != elector.FieldIdentity {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Run("twins", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(_ *testing.T, s *stage) {
			first := s.candidate("web-0")
			s.wantLeader(first, "after start")
			// A copy of the Pod, with its identity but without its memory.
			twin := s.addPod("web-0", newNode(1))
			twin.uid = first.uid
			s.startProcess(twin)
			time.Sleep(time.Minute)
			s.wantLeader(first, "beside a twin that waits")
			s.wantStandby(twin, "beside the one that leads")
			first.node.suspend()
			time.Sleep(2 * s.settings.LeaseDuration)
			s.wantLeader(twin, "when the first renews no more")
			first.node.resume()
			time.Sleep(time.Second)
			s.wantStandby(first, "whose lock its twin renews")
			s.wantLeader(twin, "beside the first")
		})
	})
}

func TestRule16StoppingIsAState(t *testing.T) {
	for _, how := range []string{"stop", "resign"} {
		t.Run(how, func(t *testing.T) {
			onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
				working := map[string]bool{}
				const slow = 25 * time.Second // longer than the lease, shorter than the grace
				for _, name := range []string{"web-0", "web-1"} {
					s.callbacks = elector.Callbacks{OnStartedLeading: func(ctx context.Context) {
						s.mu.Lock()
						if len(working) > 0 {
							t.Errorf("%s begins to work beside %v", name, working)
						}
						working[name] = true
						s.mu.Unlock()
						<-ctx.Done()
						time.Sleep(slow)
						s.mu.Lock()
						delete(working, name)
						s.mu.Unlock()
					}}
					s.candidate(name)
					time.Sleep(time.Second)
				}
				pods := s.allPods()
				s.wantLeader(pods[0], "after start")
				if how == "stop" {
					s.terminate(pods[0])
				} else {
					if err := pods[0].process.e.Resign(t.Context()); err != nil {
						t.Fatal(err)
					}
					s.wantStandby(pods[0], "after it resigned")
					time.Sleep(slow)
				}
				s.wantLeader(pods[1], "when the work has ended")
				for _, p := range pods {
					s.terminate(p)
				}
			})
		})
	}
	t.Run("not for ever", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(_ *testing.T, s *stage) {
			never := make(chan struct{})
			s.callbacks = elector.Callbacks{OnStartedLeading: func(context.Context) { <-never }}
			leader := s.candidate("web-0")
			s.callbacks = elector.Callbacks{}
			time.Sleep(time.Second)
			standby := s.candidate("web-1")
			s.terminate(leader)
			time.Sleep(s.settings.LeaseDuration + time.Second)
			s.wantLeader(standby, "when the grace is over and the lease has run out")
			close(never)
		})
	})
}

// TestRule17NoWordBlocks writes what nobody would into the Lease of a leader that is then killed.
func TestRule17NoWordBlocks(t *testing.T) {
	for name, write := range map[string]func(spec map[string]any){
		"transitions at their end":  func(spec map[string]any) { spec["leaseTransitions"] = math.MaxInt32 },
		"a lease of 68 years":       func(spec map[string]any) { spec["leaseDurationSeconds"] = math.MaxInt32 },
		"a lease of a day":          func(spec map[string]any) { spec["leaseDurationSeconds"] = 86400 },
		"a holder of 700 KB":        func(spec map[string]any) { spec["holderIdentity"] = strings.Repeat("x", 700_000) },
		"a holder, and 68 years":    func(spec map[string]any) { spec["holderIdentity"], spec["leaseDurationSeconds"] = "x", math.MaxInt32 },
		"renewed in the far future": func(spec map[string]any) { spec["renewTime"] = "9999-12-31T23:59:59.000000Z" },
		// As the API server answers what a client stored in protobuf, which has room for more years than RFC 3339.
		"renewed after the year 9999": func(spec map[string]any) { spec["renewTime"] = "10000-01-01T00:00:00.000000Z" },
		"taken before the year 0":     func(spec map[string]any) { spec["acquireTime"] = "-0001-01-01T00:00:00.000000Z" },
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
				leader, standby := s.leaderAndStandby()
				time.Sleep(10 * time.Second)
				s.kill(leader)
				s.edit("leases", func(o object) { write(o["spec"].(map[string]any)) })
				time.Sleep(s.settings.LeaseDuration + 2*time.Second)
				s.wantLeader(standby, "a lease-duration later")
				if n := s.spec()["leaseTransitions"].(float64); n < 0 {
					t.Errorf("%v transitions: the API takes no negative ones", n)
				}
			})
		})
	}
}

// ask puts an annotation on the lock as kubectl does.
func (s *stage) ask(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resource := s.resource()
	o := s.api.objects[resource+"/"+lockName].clone()
	annotations, _ := o.metadata()["annotations"].(map[string]any)
	annotations[name] = value
	if _, err := s.api.update(resource, lockName, o); err != nil {
		s.t.Fatal(err)
	}
}

// TestHandover asks the leader to go, and names who is to follow.
func TestHandover(t *testing.T) {
	begun := func(s *stage) (leader, standby, third *pod) {
		leader, standby = s.leaderAndStandby()
		third = s.candidate("web-2")
		time.Sleep(time.Minute)
		return leader, standby, third
	}
	t.Run("to one of two", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(t *testing.T, s *stage) {
			leader, _, third := begun(s)
			s.ask(elector.NextAnnotation, "web-1")
			s.ask(elector.HandoverAnnotation, elector.Handover{Token: leader.status().FencingToken, To: third.name}.String())
			s.wantLeader(third, "after a handover to it")
			o := s.api.objects["leases/"+lockName]
			if o.annotation(elector.HandoverAnnotation) != "" || o.annotation(elector.NextAnnotation) != "web-1" {
				t.Errorf("the annotations are %v", o.metadata()["annotations"])
			}
		})
	})
	t.Run("to one that is deaf", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(_ *testing.T, s *stage) {
			leader, standby, third := begun(s)
			third.cutOff()
			s.ask(elector.HandoverAnnotation, elector.Handover{Token: leader.status().FencingToken, To: third.name}.String())
			time.Sleep(900 * time.Millisecond)
			s.wantStandby(standby, "while another is left the lock")
			time.Sleep(100 * time.Millisecond)
			s.wantLeader(standby, "after a second")
		})
	})
	t.Run("of another claim", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(_ *testing.T, s *stage) {
			leader, _, _ := begun(s)
			s.ask(elector.HandoverAnnotation, elector.Handover{Token: leader.status().FencingToken + 1}.String())
			time.Sleep(time.Minute)
			s.wantLeader(leader, "after a request about another claim")
		})
	})
	t.Run("of one that is cut off", func(t *testing.T) {
		onStage(t, elector.ModeLease, func(_ *testing.T, s *stage) {
			leader, standby, _ := begun(s)
			leader.cutOff()
			s.ask(elector.HandoverAnnotation, elector.Handover{Token: leader.status().FencingToken, To: standby.name}.String())
			time.Sleep(2 * time.Second)
			s.wantLeader(leader, "while it has not heard of it")
			leader.connect()
			time.Sleep(s.settings.LeaseDuration + 2*time.Second)
			s.wantStandby(leader, "when it has heard of it")
		})
	})
	t.Run("for life", func(t *testing.T) {
		onStage(t, elector.ModeLeaderForLife, func(_ *testing.T, s *stage) {
			leader, standby, _ := begun(s)
			s.ask(elector.NextAnnotation, "web-0,web-1")
			s.ask(elector.HandoverAnnotation, elector.Handover{Token: leader.status().FencingToken}.String())
			s.wantLeader(standby, "after a handover, as the next")
		})
	})
}
