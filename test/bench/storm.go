package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
	"github.com/elector-io/elector/test/storm"
)

// stormLimit is the memory limit of an injected sidecar, inject.DefaultMemoryLimit, in bytes.
const stormLimit = 64 << 20

// togetherClients of each storm are there when all rage: on each port fewer than the kernel's queue holds, so that it does not drop the
// probes, which no listener can help.
const togetherClients = 250

const (
	probeEvery   = 100 * time.Millisecond
	probeTimeout = time.Second // a kubelet's default
)

// storms is what bin/elector stood. It led all the while, else there is none.
type storms struct {
	each []gale
	// all are all of them at the same time, on both ports.
	all gale
}

// gale is one storm.
type gale struct {
	name, port      string
	connections     int64
	before, after   measure.Memory
	anonymous       int64 // the most that was seen
	asked, answered int
	slowest         time.Duration
	lost            int // claims
}

// storms lets every storm rage for a while on each port of a sidecar of its own that leads, and then all of them.
func (l *lab) storms(ctx context.Context, binary, kubeconfig string) (s storms, err error) {
	both := map[string][]storm.Kind{"health": storm.Kinds(), "app": append(storm.Kinds(), storm.Events())}
	for _, port := range []string{"health", "app"} {
		for _, kind := range both[port] {
			one, err := l.storm(ctx, binary, kubeconfig, map[string][]storm.Kind{port: {kind}})
			if err != nil {
				return s, err
			}
			one.name, one.port = kind.Name, port
			s.each = append(s.each, one)
		}
	}
	for _, kinds := range both {
		for i := range kinds {
			kinds[i].Clients = min(kinds[i].Clients, togetherClients)
		}
	}
	s.all, err = l.storm(ctx, binary, kubeconfig, both)
	fmt.Fprintf(l.progress, "storms: at most %s resident\n", measure.Megabytes(float64(s.peak())))
	return s, err
}

// storm starts a sidecar, waits until it leads, and lets what is given rage on its ports, by name.
func (l *lab) storm(ctx context.Context, binary, kubeconfig string, kinds map[string][]storm.Kind) (g gale, err error) {
	dir, err := os.MkdirTemp("", "elector-storm-")
	if err != nil {
		return g, fmt.Errorf("making a status directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	address, err := freeAddresses("health", "app")
	if err != nil {
		return g, err
	}
	l.stormed++
	cmd := exec.CommandContext(ctx, binary, "--kubeconfig="+kubeconfig, "--namespace="+namespace, fmt.Sprintf("--lock=storm-%d", l.stormed),
		"--status-dir="+dir, "--http-address="+address["app"], "--health-address="+address["health"])
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return g, fmt.Errorf("starting a sidecar: %w", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if err != nil {
			err = fmt.Errorf("%w; the sidecar said:\n%s", err, &said)
		}
	}()
	if err := l.eventually(ctx, "the sidecar to lead", func(ctx context.Context) (bool, error) {
		return probe(ctx, "http://"+address["health"]+"/leader") == nil, nil
	}); err != nil {
		return g, err
	}
	if g.before, err = measure.ReadMemory(cmd.Process.Pid); err != nil {
		return g, err
	}
	if err := g.rage(ctx, l.plan.storm, cmd.Process.Pid, address, kinds); err != nil {
		return g, err
	}
	if g.after, err = measure.ReadMemory(cmd.Process.Pid); err != nil {
		return g, err
	}
	g.lost, err = claimsLost(ctx, "http://"+address["health"]+"/metrics")
	return g, err
}

// rage lets storms rage for as long as given, while the ports are probed as a kubelet does and memory is looked at.
func (g *gale) rage(ctx context.Context, long time.Duration, pid int, address map[string]string, kinds map[string][]storm.Kind) error {
	raging, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	var storms sync.WaitGroup
	defer storms.Wait()
	var mu sync.Mutex
	for port, of := range kinds {
		for _, kind := range of {
			storms.Go(func() {
				n := kind.Run(raging, address[port])
				mu.Lock()
				defer mu.Unlock()
				g.connections += n
			})
		}
	}
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	paths := map[string]string{"health": "/healthz", "app": "/status"}
	for {
		select {
		case <-ticker.C:
		case <-raging.Done():
			return ctx.Err()
		}
		m, err := measure.ReadMemory(pid)
		if err != nil {
			return err
		}
		g.anonymous = max(g.anonymous, m.Anonymous)
		for port := range kinds {
			began := time.Now()
			err := probe(ctx, "http://"+address[port]+paths[port])
			if raging.Err() != nil {
				break // the probe may have been the storm's last victim, or not
			}
			g.asked++
			if g.slowest = max(g.slowest, time.Since(began)); err == nil {
				g.answered++
			}
		}
	}
}

func freeAddresses(names ...string) (map[string]string, error) {
	addresses := map[string]string{}
	for _, name := range names {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		defer listener.Close() // so that the next is another
		addresses[name] = listener.Addr().String()
	}
	return addresses, nil
}

// probe asks by a connection of its own, as a kubelet does.
func probe(ctx context.Context, url string) error {
	_, err := fetch(ctx, url, probeTimeout)
	return err
}

func fetch(ctx context.Context, url string, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s says %s", url, response.Status)
	}
	return string(body), err
}

// claimsLost asks a sidecar that led when the storm began how often it has not since.
func claimsLost(ctx context.Context, url string) (int, error) {
	text, err := fetch(ctx, url, patience)
	if err != nil {
		return 0, fmt.Errorf("asking for metrics after a storm: %w", err)
	}
	lost := 0
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "elector_claim_losses_total{"); ok {
			var n int
			if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &n); err != nil {
				return 0, fmt.Errorf("reading metrics: %w", err)
			}
			lost += n
		}
	}
	return lost, nil
}

// gales are all of them.
func (s storms) gales() []gale { return append(slices.Clip(s.each), s.all) }

// peak is the most memory that a sidecar took.
func (s storms) peak() (bytes int64) {
	for _, g := range s.gales() {
		bytes = max(bytes, g.after.Peak)
	}
	return bytes
}

// rows are the figures that have a target. client-go has no port.
func (s storms) rows() []measure.Row {
	lost := 0
	for _, g := range s.gales() {
		lost += g.lost
	}
	number := func(n float64) string { return fmt.Sprintf("%.0f", n) }
	rows := []measure.Row{
		newRow("sidecar, peak memory in a storm", float64(s.peak()), 0, measure.Megabytes, "≤ 67.1 MB", stormLimit),
		newRow("sidecar, claims lost in storms", float64(lost), 0, number, "0", 0),
	}
	for i := range rows {
		rows[i].Values = []string{rows[i].Values[0], "", ""}
	}
	return rows
}

// stormRow is one line of the report.
type stormRow struct{ Storm, Port, Connections, Before, Peak, Anonymous, Answered, Slowest string }

func (s storms) report() []stormRow {
	rows := make([]stormRow, 0, len(s.each)+1)
	for _, g := range s.gales() {
		rows = append(rows, stormRow{
			g.name, g.port, strconv.FormatInt(g.connections, 10), measure.Megabytes(float64(g.before.Peak)), measure.Megabytes(float64(g.after.Peak)),
			measure.Megabytes(float64(g.anonymous)), fmt.Sprintf("%d of %d", g.answered, g.asked), measure.Duration(g.slowest),
		})
	}
	rows[len(rows)-1].Storm, rows[len(rows)-1].Port = "all of them", "both"
	return rows
}
