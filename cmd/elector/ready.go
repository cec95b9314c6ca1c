package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/elector-io/elector/cmd/internal/program"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube/lock"
)

// ready is the command that an injected sidecar's startup probe executes. A probe
// over HTTP would go through the pod's mesh, whose proxy may start after the
// sidecar.
var ready = program.Program{
	Name: "elector ready", Version: version, Prefix: self.Prefix, Brief: true,
	About: "elector ready waits until the elector beside it has written status.json and answers the application. It does not wait for the API server.",
	Flags: []program.Flag{
		httpAddress,
		{Name: "timeout", Default: "5s", Help: "how long to wait"},
	},
}

const (
	// readyPause is between two tries: starting takes some 50 ms.
	readyPause = 20 * time.Millisecond
	// readyTry limits one try. Loopback answers in a millisecond.
	readyTry = time.Second
)

// parseReady makes of the flags' values what is run.
func parseReady(v program.Values, getenv func(string) string) (func(context.Context) error, error) {
	address := v.Text(httpAddress.Name)
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, &elector.FieldError{Field: "--" + httpAddress.Name, Value: address, Allowed: addressAllowed}
	}
	timeout, err := time.ParseDuration(v.Text("timeout"))
	if err != nil || timeout <= 0 {
		return nil, &elector.FieldError{Field: "--timeout", Value: v.Text("timeout"), Allowed: "use a duration above 0s such as 5s"}
	}
	identity := ""
	if name, uid := getenv(lock.PodNameEnv), getenv(lock.PodUIDEnv); name != "" && uid != "" {
		identity = elector.Identity(name, uid)
	}
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if err := awaitAnswer(ctx, address, identity); err != nil {
			return fmt.Errorf("no elector answers at %s within %s: %w", address, timeout, err)
		}
		return nil
	}, nil
}

// awaitAnswer tries until the candidate of that identity answers at address, or
// any candidate if identity is empty. An elector that answers has written its
// status.json before. When ctx ends it returns why the last whole try failed.
func awaitAnswer(ctx context.Context, address, identity string) error {
	// No keep-alive: a place at the sidecar is worth more than a handshake on
	// loopback. No proxy: the address is this machine's.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: readyTry}
	var why error
	for {
		err := answers(ctx, client, address, identity)
		if err == nil {
			return nil
		}
		if why == nil || ctx.Err() == nil {
			why = err
		}
		select {
		case <-ctx.Done():
			return why
		case <-time.After(readyPause):
		}
	}
}

// answers asks once. With host networking another pod's sidecar may have the
// address, which is why the identity counts.
func answers(ctx context.Context, client *http.Client, address, identity string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	var status elector.Status
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&status); err != nil {
		return fmt.Errorf("its status: %w", err)
	}
	if identity != "" && status.Identity != identity {
		return fmt.Errorf("the candidate there is %q, not %q", status.Identity, identity)
	}
	return nil
}

// maxAnswer is many times what a status needs, in bytes.
const maxAnswer = 64 << 10
