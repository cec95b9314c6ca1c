package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
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
	About: "elector ready waits until the elector beside it has written status.json and answers the application. It does not wait for the API server, unless it waits for leadership.",
	Flags: []program.Flag{
		httpAddress,
		{Name: leaderFlag, Default: "false", Help: "true waits until that elector leads, too"},
		{Name: "timeout", Default: "5s", Help: "how long to wait"},
	},
}

const leaderFlag = "leader"

const (
	// readyPause is between two tries: starting takes some 50 ms.
	readyPause = 20 * time.Millisecond
	// readyTry limits one try. Loopback answers in a millisecond.
	readyTry = time.Second
	// leaderPause is between two tries to hear of leadership, each of which listens as
	// long as it can.
	leaderPause = time.Second
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
	leader, err := strconv.ParseBool(v.Text(leaderFlag))
	if err != nil {
		return nil, &elector.FieldError{Field: "--" + leaderFlag, Value: v.Text(leaderFlag), Allowed: "use true or false"}
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
		if leader && !awaitLeader(ctx, address) {
			return fmt.Errorf("the elector at %s does not lead within %s", address, timeout)
		}
		return nil
	}, nil
}

// awaitLeader listens until the candidate at address leads, or ctx ends. To listen
// costs the sidecar less than to be asked again and again, and tells at once.
func awaitLeader(ctx context.Context, address string) bool {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		if hears(ctx, client, address) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(leaderPause):
		}
	}
}

// hears reports whether the events at address tell that the candidate leads, before
// they end.
func hears(ctx context.Context, client *http.Client, address string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/events", nil)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		data, isData := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		var status elector.Status
		if isData && json.Unmarshal(data, &status) == nil && status.Role == elector.RoleLeader {
			return true
		}
	}
	return false
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
