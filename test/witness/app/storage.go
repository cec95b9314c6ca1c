package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/elector-io/elector/test/witness"
)

// storage is what fencing tokens are for: it refuses a write whose token is lower than one that it has seen.
type storage struct {
	mu     sync.Mutex
	epochs []witness.Epoch
}

// ServeHTTP takes a write, POST ?token=N, and tells what has been written, GET.
func (s *storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method != http.MethodPost {
		text, err := json.Marshal(s.epochs)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(text) // who asks will notice
		return
	}
	token, err := strconv.ParseUint(r.FormValue("token"), 10, 64)
	if err != nil || token == 0 {
		http.Error(w, "a write needs a fencing token", http.StatusBadRequest)
		return
	}
	if !s.write(token) {
		http.Error(w, "a later leader has written", http.StatusConflict)
	}
}

// write notes a write, and tells whether it is taken.
func (s *storage) write(token uint64) bool {
	n := len(s.epochs)
	switch {
	case n == 0 || token > s.epochs[n-1].Token:
		now := witness.Now()
		s.epochs = append(s.epochs, witness.Epoch{Token: token, First: now, Last: now, Writes: 1})
	case token < s.epochs[n-1].Token:
		s.epochs[n-1].Refused++
		return false
	default:
		s.epochs[n-1].Last = witness.Now()
		s.epochs[n-1].Writes++
	}
	return true
}

const (
	// writeEvery is the time between two writes of an app that leads.
	writeEvery    = 5 * time.Millisecond
	writePatience = time.Second
)

// write writes into the storage all the time that the pod leads, as careful as an application should be.
func write(ctx context.Context, url, statusDir string) {
	client := http.Client{Timeout: writePatience}
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s := witness.Look(statusDir)
		if !s.Leads || s.Status.Token == 0 {
			continue
		}
		// One that is refused, or lost, is not written again: there is the next one.
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"?token="+strconv.FormatUint(s.Status.Token, 10), http.NoBody)
		if err != nil {
			return
		}
		if response, err := client.Do(request); err == nil {
			_, _ = io.Copy(io.Discard, response.Body) // for the connection to be used again
			response.Body.Close()
		}
	}
}
