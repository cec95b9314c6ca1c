// Command app is the application in the pods of the integration tests and the end-to-end tests: package witness as a program, that
// answers HTTP, writes into a storage, and is well or ends as it is told to.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/elector-io/elector/test/witness"
)

type config struct {
	address string
	get     string
	health  health
	write   string
	storage bool
	witness.Config
}

func main() {
	cfg := config{Config: witness.Config{
		StatusDir: os.Getenv("ELECTOR_STATUS_DIR"), URL: os.Getenv("ELECTOR_URL"), Note: os.Getenv("POD_NAME"), Out: os.Stdout,
	}}
	flag.StringVar(&cfg.address, "address", ":8080", "where to answer HTTP with the pod's name, and /ready; empty: nowhere")
	flag.StringVar(&cfg.get, "get", "", "print what this URL answers, and exit")
	flag.StringVar((*string)(&cfg.health), "health", "", "directory whose files say how the app is: crash ends it with 1, unready has /ready answer 503; empty: well")
	flag.StringVar(&cfg.write, "write", "", "storage to write into all the time that the pod leads, a URL; empty: none")
	flag.BoolVar(&cfg.storage, "storage", false, "be that storage, at -address")
	flag.DurationVar(&cfg.StopDelay, "stop-delay", 0, "how long to go on after SIGTERM")
	flag.DurationVar(&cfg.LeadFor, "lead-for", 0, "exit with 0 after having led for this time; 0 works until SIGTERM")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg config) (err error) {
	if cfg.get != "" {
		return get(ctx, cfg.get)
	}
	ctx, crash := context.WithCancelCause(ctx)
	defer crash(nil)
	var working sync.WaitGroup
	defer working.Wait()
	if cfg.health != "" {
		if err := cfg.health.check(); err != nil {
			return err
		}
		working.Go(func() { crash(cfg.health.await(ctx)) })
	}
	if cfg.write != "" {
		working.Go(func() { write(ctx, cfg.write, cfg.StatusDir) })
	}
	err = serve(ctx, cfg)
	crash(nil)
	if errors.Is(context.Cause(ctx), errCrash) {
		return errCrash
	}
	return err
}

// serve answers HTTP while the witness looks.
func serve(ctx context.Context, cfg config) error {
	if cfg.address == "" {
		return witness.Run(ctx, cfg.Config)
	}
	listener, err := net.Listen("tcp", cfg.address)
	if err != nil {
		return fmt.Errorf("answering: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, cfg.Note) })
	mux.Handle("/ready", cfg.health)
	if cfg.storage {
		mux.Handle("/storage", &storage{})
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: mux}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // until Close
	defer serving.Wait()
	defer func() { _ = server.Close() }() // it serves nothing that could be lost
	return witness.Run(ctx, cfg.Config)
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
