// Command app is the application in the pods of the end-to-end tests. It looks many times a second whether its pod leads, as the
// README tells applications to, and logs on CLOCK_BOOTTIME what it saw; see history.Line.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/elector-io/elector/test/e2e/history"
)

type config struct {
	address   string
	get       string
	stopDelay time.Duration
	leadFor   time.Duration
	statusDir string // empty: not elected
	pod       string
}

func main() {
	cfg := config{statusDir: os.Getenv("ELECTOR_STATUS_DIR"), pod: os.Getenv("POD_NAME")}
	flag.StringVar(&cfg.address, "address", ":8080", "where to answer HTTP with the pod's name")
	flag.StringVar(&cfg.get, "get", "", "print what this URL answers, and exit")
	flag.DurationVar(&cfg.stopDelay, "stop-delay", 0, "how long to go on after SIGTERM")
	flag.DurationVar(&cfg.leadFor, "lead-for", 0, "exit with 0 after having led for this time; 0 works until SIGTERM")
	flag.Parse()
	if err := run(context.Background(), cfg); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg config) error {
	if cfg.get != "" {
		return get(ctx, cfg.get)
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT)
	out := json.NewEncoder(os.Stdout)
	server := &http.Server{Addr: cfg.address, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, cfg.pod)
	})}
	failed := make(chan error, 1)
	var serving sync.WaitGroup
	serving.Go(func() { failed <- server.ListenAndServe() })
	defer serving.Wait()
	defer func() { _ = server.Close() }() // it serves nothing that could be lost
	a := app{cfg: cfg, out: out}
	return a.work(asked, failed)
}

// The times between looks, and between two lines that say that nothing changed.
const (
	lookEvery = 5 * time.Millisecond
	sayEvery  = 200 * time.Millisecond
)

type app struct {
	cfg    config
	out    *json.Encoder
	last   status        // what the last look saw, if it leads
	leads  bool          //
	since  time.Duration // when it saw that first
	looked time.Duration // when the last look began that said that the pod leads
	said   time.Duration
}

func (a *app) work(asked <-chan os.Signal, failed <-chan error) error {
	if err := a.say(history.Line{Event: history.EventStarted, Note: a.cfg.pod}); err != nil {
		return err
	}
	if a.cfg.statusDir != "" {
		if err := a.say(history.Line{Event: history.EventWrite, Note: tryToWrite(a.cfg.statusDir)}); err != nil {
			return err
		}
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var end <-chan time.Time
	for {
		if err := a.look(); err != nil {
			return err
		}
		if a.cfg.leadFor > 0 && a.leads && a.looked-a.since >= a.cfg.leadFor {
			return a.stop()
		}
		select {
		case <-tick.C:
		case err := <-failed:
			return err
		case <-asked:
			asked = nil
			if err := a.say(history.Line{Event: history.EventAsked}); err != nil {
				return err
			}
			end = time.After(a.cfg.stopDelay)
		case <-end:
			return a.stop()
		}
	}
}

// stop says what an app says last.
func (a *app) stop() error {
	if a.leads {
		if err := a.sayLed(history.EventLooked, a.looked); err != nil {
			return err
		}
	}
	return a.say(history.Line{Event: history.EventStops})
}

// look reads whether the pod leads, and says what changed.
func (a *app) look() error {
	before := now()
	s, leads := read(a.cfg.statusDir)
	after := now()
	changed := leads != a.leads || leads && s.Token != a.last.Token
	if changed && a.leads {
		if err := a.sayLed(history.EventLooked, a.looked); err != nil {
			return err
		}
	}
	switch {
	case changed && leads:
		a.last, a.since, a.said = s, after, after
		if err := a.sayLed(history.EventLeads, after); err != nil {
			return err
		}
	case changed:
		if err := a.say(history.Line{Event: history.EventFollows, Clock: after}); err != nil {
			return err
		}
	case leads && after-a.said >= sayEvery:
		a.said = after
		if err := a.sayLed(history.EventStill, before); err != nil {
			return err
		}
	}
	if a.leads = leads; leads {
		a.looked = before
	}
	return nil
}

func (a *app) sayLed(event string, at time.Duration) error {
	return a.say(history.Line{
		Event: event, Clock: at, Lock: a.last.Namespace + "/" + a.last.Lock, Identity: a.last.Identity, Mode: a.last.Mode, Token: a.last.Token,
	})
}

func (a *app) say(l history.Line) error {
	if l.Clock == 0 {
		l.Clock = now()
	}
	if err := a.out.Encode(l); err != nil {
		return fmt.Errorf("logging: %w", err)
	}
	return nil
}

// status is what the app needs of status.json.
type status struct {
	Role       string
	Lock       string
	Namespace  string
	Identity   string
	Mode       string
	Token      uint64 `json:"fencingToken"`
	ValidUntil *time.Time
}

// read asks as carefully as an application can: the file has to be there and what status.json promises must not be over.
func read(dir string) (s status, leads bool) {
	if dir == "" {
		return s, false
	}
	if _, err := os.Stat(filepath.Join(dir, "leader")); err != nil {
		return s, false
	}
	data, err := os.ReadFile(filepath.Join(dir, "status.json"))
	if err != nil || json.Unmarshal(data, &s) != nil || s.Role != "leader" {
		return s, false
	}
	return s, s.ValidUntil == nil || time.Now().Before(*s.ValidUntil)
}

// tryToWrite does what an app must not be able to.
func tryToWrite(dir string) string {
	err := os.WriteFile(filepath.Join(dir, "leader"), []byte("forged\n"), 0o600)
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, syscall.EROFS):
		return "refused: read-only file system"
	default:
		return "failed: " + err.Error()
	}
}

func get(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get: %s answered %s", url, resp.Status)
	}
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		return fmt.Errorf("get: %w", err)
	}
	return nil
}

// now is CLOCK_BOOTTIME, by which all containers of a machine can be compared.
func now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // Linux has had it since 2.6.39
	return time.Duration(ts.Nano())
}
