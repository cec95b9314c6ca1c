package witness

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// log is where lines are written, by several goroutines.
type log struct {
	mu  sync.Mutex
	out *json.Encoder
	err error // the first
}

func newLog(out io.Writer) *log { return &log{out: json.NewEncoder(out)} }

func (l *log) say(line Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if line.Clock == 0 {
		line.Clock = Now()
	}
	if err := l.out.Encode(line); err != nil && l.err == nil {
		l.err = fmt.Errorf("logging: %w", err)
	}
}

// failed is why lines are missing.
func (l *log) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// view follows what one way of looking tells of leadership. Its methods belong to one goroutine.
type view struct {
	by    By
	log   *log
	every time.Duration // between two lines that say that nothing changed

	leads bool
	last  Status        // of the last look that said that the pod leads
	since time.Duration // when it was seen first
	until time.Duration // when the last look began that said so
	said  time.Duration
}

// saw takes in a look.
func (v *view) saw(began, ended time.Duration, s Status, leads bool) {
	if v.leads && (!leads || s.Token != v.last.Token || s.Identity != v.last.Identity) {
		v.ends()
		if !leads {
			v.log.say(Line{Event: EventFollows, Clock: ended, By: v.by})
		}
	}
	if !leads {
		return
	}
	switch {
	case !v.leads:
		v.leads, v.last, v.since, v.said = true, s, ended, ended
		line := v.line(EventLeads, ended)
		line.Took = ended - began
		v.log.say(line)
	case began-v.said >= v.every:
		v.said = began
		v.log.say(v.line(EventStill, began))
	}
	v.until = began
}

// ends says when the app was told last that it leads.
func (v *view) ends() {
	if v.leads {
		v.leads = false
		v.log.say(v.line(EventLooked, v.until))
	}
}

func (v *view) line(event string, at time.Duration) Line {
	return Line{
		Event: event, Clock: at, By: v.by,
		Lock: v.last.Namespace + "/" + v.last.Lock, Identity: v.last.Identity, Mode: v.last.Mode, Token: v.last.Token,
	}
}
