package witness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Config says what to look at.
type Config struct {
	// StatusDir is the status directory, $ELECTOR_STATUS_DIR. Empty: the pod is not elected, and there is nothing to see.
	StatusDir string
	// URL is the sidecar's, $ELECTOR_URL. Empty: it is not asked.
	URL string
	// LeadFor ends Run when the pod has led for this time. Default: never.
	LeadFor time.Duration
	// StopDelay is how long to go on when ctx has ended. Default: not at all.
	StopDelay time.Duration
	// Note is in the first line.
	Note string
	// Out gets the lines.
	Out io.Writer
}

const (
	// lookEvery is the time between two looks of a leader, and of everybody where the kernel does not tell of changes.
	lookEvery = 5 * time.Millisecond
	// askEvery is the time between two questions over HTTP.
	askEvery = 200 * time.Millisecond
	// sayEvery is the time between two lines that say that a careful app still leads; the other views say it more seldom.
	sayEvery     = 200 * time.Millisecond
	saySeldom    = time.Second
	askPatience  = time.Second
	tokenFile    = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path
	statusPath   = "/status"
	maxStatusLen = 64 << 10
)

// Run looks and writes until ctx ends, or until it has led for long enough. Its last words are until when it led, and that it stops.
//
// While its pod leads it looks many times a second; a standby's sleeps until the kernel tells that something changed.
func Run(ctx context.Context, cfg Config) error {
	out := newLog(cfg.Out)
	out.say(Line{Event: EventStarted, Note: cfg.Note, Found: lookAround()})
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	all.Go(func() {
		if !sleep(working, ctx.Done()) {
			return
		}
		out.say(Line{Event: EventAsked})
		sleep(working, time.After(cfg.StopDelay))
		stop()
	})
	if cfg.URL != "" {
		all.Go(func() { ask(working, cfg.URL, &view{by: ByHTTP, log: out, every: saySeldom}) })
	}
	if cfg.StatusDir == "" {
		<-working.Done()
	} else {
		out.say(Line{Event: EventWrite, Note: tryToWrite(cfg.StatusDir)})
		w := watcher{
			dir: cfg.StatusDir, log: out,
			bare: view{by: ByFile, log: out, every: saySeldom}, careful: view{by: ByStatus, log: out, every: sayEvery},
		}
		w.watch(working, cfg.LeadFor)
	}
	stop()
	all.Wait()
	out.say(Line{Event: EventStops})
	return out.failed()
}

// sleep waits for what wakes it, and tells whether that came before the end of ctx.
func sleep[T any](ctx context.Context, wake <-chan T) bool {
	select {
	case <-wake:
		return true
	case <-ctx.Done():
		return false
	}
}

func lookAround() *Found {
	f := &Found{Env: map[string]string{}}
	for _, name := range []string{"ELECTOR_STATUS_DIR", "ELECTOR_URL", "POD_NAME"} {
		f.Env[name] = os.Getenv(name)
	}
	_, err := os.Stat(tokenFile)
	f.Token = err == nil
	return f
}

// tryToWrite does what an app must not be able to.
func tryToWrite(dir string) string {
	err := os.WriteFile(filepath.Join(dir, leaderFile), []byte("forged\n"), 0o600)
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, syscall.EROFS):
		return "refused: read-only file system"
	default:
		return "failed: " + err.Error()
	}
}

// watcher follows a status directory.
type watcher struct {
	dir           string
	log           *log
	bare, careful view
	last          *Sight // nil before the first
}

// watch returns when ctx has ended, or when the app has led for so long, and has said so.
func (w *watcher) watch(ctx context.Context, leadFor time.Duration) {
	changes, stop := follow(w.dir)
	defer stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	defer func() {
		w.bare.ends()
		w.careful.ends()
	}()
	for ctx.Err() == nil {
		w.look()
		if leadFor > 0 && w.careful.leads && w.careful.until-w.careful.since >= leadFor {
			return
		}
		ticks := tick.C
		if changes != nil && !w.last.File {
			ticks = nil
		}
		select {
		case <-ctx.Done():
		case <-ticks:
		case change, ok := <-changes:
			if !ok {
				changes = nil // from now on looking is all there is
			}
			if change == removed {
				w.gone()
			}
		}
	}
}

// look takes in what is in the directory.
func (w *watcher) look() {
	s := Look(w.dir)
	if w.last == nil || s.File != w.last.File || s.Name != w.last.Name || !bytes.Equal(s.Raw, w.last.Raw) {
		w.say(s)
	}
	w.last = &s
	w.bare.saw(s.Began, s.Ended, s.Status, s.File)
	w.careful.saw(s.Began, s.Ended, s.Status, s.Leads)
}

func (w *watcher) say(s Sight) {
	raw := json.RawMessage(s.Raw)
	if !json.Valid(raw) {
		raw = nil
	}
	w.log.say(Line{Event: EventSees, Clock: s.Ended, Leads: s.File, Name: s.Name, Status: raw})
}

// gone takes in that the leader file was removed. It may be there again already, which the next look would not tell.
func (w *watcher) gone() {
	now := Now()
	w.bare.saw(now, now, Status{}, false)
	w.careful.saw(now, now, Status{}, false)
	if w.last.File {
		s := *w.last
		s.Began, s.Ended, s.File, s.Name, s.Leads = now, now, false, "", false
		w.say(s)
		w.last = &s
	}
}

// ask asks the sidecar until ctx ends.
func ask(ctx context.Context, url string, v *view) {
	defer v.ends()
	client := http.Client{Timeout: askPatience}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		began := Now()
		s, err := askOnce(ctx, &client, url)
		if ctx.Err() != nil {
			return
		}
		// Who does not answer says nothing of leading.
		v.saw(began, Now(), s, err == nil && s.leads())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func askOnce(ctx context.Context, client *http.Client, url string) (s Status, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+statusPath, http.NoBody)
	if err != nil {
		return s, fmt.Errorf("asking: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return s, fmt.Errorf("asking: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxStatusLen))
	if err != nil {
		return s, fmt.Errorf("asking: %w", err)
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("asking: %w", err)
	}
	return s, nil
}
