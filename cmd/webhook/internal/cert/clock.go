package cert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// Clock tells the time by which certificates are judged.
type Clock interface {
	// Ask returns the time as it is told now.
	Ask(ctx context.Context) (time.Time, error)
	// Now returns the time by what was told last. It may ask. It returns an error
	// as long as nothing was told.
	Now(ctx context.Context) (time.Time, error)
}

// ServerClock is the API server's clock, as it stands in the Date of its answers:
// API servers verify the webhook's certificate by theirs, so theirs is right by
// definition, and a replica whose own clock is wrong does as the others do. It is
// never ahead by more than a second, nor behind by more than that and the time
// that an answer takes. Between answers it goes at the rate of this machine's
// monotonic clock, which no hand sets.
//
// API servers whose clocks differ by less than an hour do not trouble each other:
// certificates are backdated by that.
type ServerClock struct {
	client *http.Client
	url    string
	// wall is this machine's clock. It is only compared, never gone by.
	wall func() time.Time

	mu     sync.Mutex
	asked  time.Time // by this machine
	heard  time.Time // the same; zero before the first answer
	server time.Time // the API server's, when it was heard
	ahead  time.Duration
}

const (
	// askTimeout is below what a readiness check has.
	askTimeout = 3 * time.Second
	// maxCarried is how long Now does not ask. An API server's clock that was set
	// comes to the readiness check within this time.
	maxCarried = time.Minute
	// maxAhead is how far this machine's clock may be off before that is said.
	maxAhead = time.Minute
)

// errUntold is what Ask returns when it gets no answer of use.
var errUntold = errors.New("the API server does not tell its time")

// NewServerClock returns the clock of config's API server. client sends what it
// takes to be let in.
func NewServerClock(config *rest.Config, client *http.Client) (*ServerClock, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("finding the API server's clock: %w", err)
	}
	return &ServerClock{client: client, url: base.JoinPath("version").String(), wall: time.Now}, nil
}

// Ask implements Clock.
func (c *ServerClock) Ask(ctx context.Context) (time.Time, error) {
	sent := time.Now()
	c.mu.Lock()
	c.asked = sent
	c.mu.Unlock()
	date, err := c.date(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", errUntold, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	received := time.Now()
	// The second that was told began before it was received, and ended after the
	// request was sent. What fits to that goes on undisturbed.
	earliest, latest := date, date.Add(time.Second+received.Sub(sent))
	now := earliest
	if !c.heard.IsZero() {
		now = c.carried(received)
	}
	if now.Before(earliest) {
		now = earliest
	}
	if now.After(latest) {
		now = latest
	}
	c.heard, c.server = received, now
	c.compare(ctx, earliest, latest)
	return now, nil
}

// date returns the whole second that the API server's answer was made in.
func (c *ServerClock) date(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return time.Time{}, err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return time.Time{}, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // for the next request on the connection
	_ = response.Body.Close()
	if response.StatusCode >= http.StatusInternalServerError {
		return time.Time{}, fmt.Errorf("it answers %s", response.Status) // or something in front of it does
	}
	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return time.Time{}, errors.New("its answer has no Date")
	}
	return date, nil
}

// carried is for holders of mu.
func (c *ServerClock) carried(at time.Time) time.Time { return c.server.Add(at.Sub(c.heard)) }

// compare is for holders of mu. It says when the two clocks begin to differ, and
// when they agree again.
func (c *ServerClock) compare(ctx context.Context, earliest, latest time.Time) {
	wall, before := c.wall(), c.ahead
	switch {
	case wall.Before(earliest):
		c.ahead = wall.Sub(earliest)
	case wall.After(latest):
		c.ahead = wall.Sub(latest)
	default:
		c.ahead = 0
	}
	log := klog.FromContext(ctx)
	switch was, is := before.Abs() > maxAhead, c.ahead.Abs() > maxAhead; {
	case is && !was:
		log.Error(nil, "the clocks of this machine and of the API server differ, set the wrong one: certificates go by the API server's", "ahead", c.ahead.Round(time.Second))
	case was && !is:
		log.Info("the clocks of this machine and of the API server agree again")
	}
}

// Now implements Clock.
func (c *ServerClock) Now(ctx context.Context) (time.Time, error) {
	c.mu.Lock()
	at := time.Now()
	now, heard, due := c.carried(at), !c.heard.IsZero(), c.asked.IsZero() || at.Sub(c.asked) >= maxCarried
	c.mu.Unlock()
	if !due && heard {
		return now, nil
	}
	told, err := c.Ask(ctx)
	if err != nil && heard {
		return now, nil
	}
	return told, err
}

// Ahead is a metric: by how much this machine's clock is ahead of the API
// server's.
func (c *ServerClock) Ahead() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "elector_webhook_clock_ahead_seconds",
		Help: "By how much this machine's clock is ahead of the API server's, by which certificates go; below 0 if it is behind, 0 while they agree to the second or nothing is known.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.ahead.Seconds()
	})
}
