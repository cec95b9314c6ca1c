package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// health is a directory whose files say how the app is. It outlives the container, so that an app that crashes does so again.
type health string

// The files.
const (
	crashFile   = "crash"
	unreadyFile = "unready"
)

// errCrash is how an app ends that is told to crash.
var errCrash = errors.New("crashing, as -health says")

// checkEvery is the time between two looks whether to crash.
const checkEvery = 50 * time.Millisecond

func (h health) says(file string) bool {
	_, err := os.Stat(filepath.Join(string(h), file))
	return h != "" && err == nil
}

// check returns errCrash if the app is to crash.
func (h health) check() error {
	if h.says(crashFile) {
		return errCrash
	}
	return nil
}

// await returns errCrash when the app is to crash, and nil when ctx ends before.
func (h health) await(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := h.check(); err != nil {
				return err
			}
		}
	}
}

// ServeHTTP answers a readiness probe.
func (h health) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if h.says(unreadyFile) {
		http.Error(w, "unready, as -health says", http.StatusServiceUnavailable)
	}
}
