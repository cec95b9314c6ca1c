package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/test/storm"
)

// leases is an API server with one Lease at most.
type leases struct {
	mu      sync.Mutex
	version int
	lease   map[string]any // nil: none
	writes  int
	changed chan struct{} // closed at the next write
}

func (l *leases) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Get("watch") != "":
		l.watch(w, r)
	case r.Method == http.MethodGet:
		l.mu.Lock()
		defer l.mu.Unlock()
		items := []any{}
		if l.lease != nil {
			items = append(items, l.lease)
		}
		reply(w, map[string]any{
			"apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList", "metadata": map[string]any{"resourceVersion": strconv.Itoa(l.version)}, "items": items,
		})
	default:
		var lease map[string]any
		if err := json.NewDecoder(r.Body).Decode(&lease); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply(w, l.put(lease))
	}
}

// put stores a Lease. There is no other candidate, so that nobody is in conflict.
func (l *leases) put(lease map[string]any) map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.version++
	l.writes++
	if meta, ok := lease["metadata"].(map[string]any); ok {
		meta["resourceVersion"], meta["uid"] = strconv.Itoa(l.version), "1"
	}
	lease["apiVersion"], lease["kind"] = "coordination.k8s.io/v1", "Lease"
	l.lease = lease
	close(l.changed)
	l.changed = make(chan struct{})
	return lease
}

func (l *leases) watch(w http.ResponseWriter, r *http.Request) {
	seen, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	w.Header().Set("Content-Type", "application/json")
	control := http.NewResponseController(w)
	for {
		l.mu.Lock()
		if l.version > seen && l.lease != nil {
			seen = l.version
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "MODIFIED", "object": l.lease}) //nolint:errchkjson // the client may be gone
		}
		changed := l.changed
		l.mu.Unlock()
		_ = control.Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// written is how many writes there were.
func (l *leases) written() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) //nolint:errchkjson // the client may be gone
}

// TestStorm holds that no client of the two ports ends or freezes a claim: while all storms rage on both, the lock is renewed, the
// claim is the same, and a kubelet and an application are answered as often as they need.
func TestStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	lock := &leases{version: 1, changed: make(chan struct{})}
	api := httptest.NewServer(lock)
	defer api.Close()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	write(t, kubeconfig, fmt.Sprintf(`{"clusters": [{"name": "c", "cluster": {"server": %q}}],
		"contexts": [{"name": "c", "context": {"cluster": "c", "namespace": "prod"}}], "current-context": "c"}`, api.URL))
	health, app := freeAddress(t), freeAddress(t)

	exited := make(chan int, 1)
	var stdout, stderr bytes.Buffer
	go func() {
		exited <- command([]string{
			"--lock=web", "--identity=me", "--lease-duration=15s", "--renew-deadline=10s", "--retry-period=1s",
			"--kubeconfig=" + kubeconfig, "--status-dir=" + dir, "--http-address=" + app, "--health-address=" + health,
		}, environment(), &stdout, &stderr)
	}()
	defer func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := <-exited; code != 0 {
			t.Errorf("exit code %d after SIGTERM: %s", code, &stderr)
		}
	}()
	var before elector.Status
	for deadline := time.Now().Add(30 * time.Second); before.Role != elector.RoleLeader; {
		if time.Now().After(deadline) {
			t.Fatal("it does not lead")
		}
		if body, err := ask("http://" + app + "/status"); err == nil {
			if err := json.Unmarshal([]byte(body), &before); err != nil {
				t.Fatal(err)
			}
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	var storms sync.WaitGroup
	defer storms.Wait()
	defer cancel()
	for _, address := range []string{health, app} {
		for _, kind := range append(storm.Kinds(), storm.Events()) {
			kind.Clients = min(kind.Clients, stormClients)
			storms.Go(func() { kind.Run(ctx, address) })
		}
	}
	probes := map[string]int{"http://" + health + "/healthz": 0, "http://" + health + "/metrics": 0, "http://" + app + "/status": 0}
	for renewed := lock.written(); lock.written() < renewed+2; {
		for url := range probes {
			if _, err := ask(url); err != nil {
				// What a kubelet allows: three in a row.
				if probes[url]++; probes[url] == 3 {
					t.Fatalf("%s three times in a row: %v", url, err)
				}
				continue
			}
			probes[url] = 0
		}
	}
	cancel()
	storms.Wait()

	body, err := ask("http://" + app + "/status")
	if err != nil {
		t.Fatal(err)
	}
	var after elector.Status
	if err := json.Unmarshal([]byte(body), &after); err != nil || after.Role != elector.RoleLeader || after.FencingToken != before.FencingToken || !after.Since.Equal(before.Since) {
		t.Errorf("the claim is another: %s, before %+v: %v", body, before, err)
	}
}

// ask asks as a kubelet does, by a connection of its own.
func ask(url string) (body string, err error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return string(data), err
}
