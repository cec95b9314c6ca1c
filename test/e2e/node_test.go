//go:build e2e

package e2e

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/elector-io/elector/test/history"
	"github.com/elector-io/elector/test/witness"
)

// node is a node of the kind cluster: a container in which a shell records the logs of all pods, also of those that are deleted.
type node struct {
	name string

	mu     sync.Mutex
	shell  *exec.Cmd // nil while the node can't be reached
	in     io.WriteCloser
	out    *bufio.Reader
	cached map[string][]history.Log // by namespace: what was read last
}

// recorded is where a node keeps the logs.
const recorded = "/var/log/elector-e2e"

// recorder makes hard links to the logs, which keep what is in them when the kubelet removes them, and in between runs the scripts
// that it reads, one base64 line each (of which a read that times out has a part). The answer is the exit code, the size of the output, and the output. It ends with its input.
const recorder = `
mkdir -p ` + recorded + ` && cd ` + recorded + ` || exit
shopt -s nullglob
while :; do
	for log in /var/log/pods/*/*/*.log; do
		name=${log#/var/log/pods/}
		name=${name//\//+}
		[ -e "$name" ] || ln "$log" "$name" 2>/dev/null
	done
	read -r -t 0.2 part
	code=$? script+=$part
	if [ $code = 0 ]; then
		( eval "$(base64 -d <<<"$script")" ) >/run/elector-e2e.out 2>/run/elector-e2e.err </dev/null
		echo "$? $(stat -c %s /run/elector-e2e.out) $(stat -c %s /run/elector-e2e.err)"
		cat /run/elector-e2e.out /run/elector-e2e.err
		script=
	elif [ $code -le 128 ]; then
		exit
	fi
done`

// open starts the shell.
func (n *node) open(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "docker", "exec", "-i", n.name, "bash", "-c", recorder)
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("node %s: %w", n.name, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("node %s: %w", n.name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("node %s: %w", n.name, err)
	}
	n.shell, n.in, n.out = cmd, in, bufio.NewReader(out)
	if _, err := n.run("true"); err != nil {
		n.end()
		return err
	}
	return nil
}

func (n *node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.end()
}

// end ends the shell and waits for it.
func (n *node) end() {
	if n.shell == nil {
		return
	}
	_ = n.in.Close()
	killed := time.AfterFunc(2*time.Second, func() { _ = n.shell.Process.Kill() }) // the node may be paused
	_ = n.shell.Wait()                                                             // how it ended does not matter
	killed.Stop()
	n.shell = nil
}

var errUnreachable = errors.New("the node can't be reached")

// sh runs a short script in the node and returns its output.
func (n *node) sh(script string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out, err := n.run(script)
	return string(out), err
}

func (n *node) run(script string) ([]byte, error) {
	if n.shell == nil {
		return nil, fmt.Errorf("node %s: %w", n.name, errUnreachable)
	}
	hung := time.AfterFunc(30*time.Second, func() { _ = n.shell.Process.Kill() })
	defer hung.Stop()
	if _, err := fmt.Fprintln(n.in, base64.StdEncoding.EncodeToString([]byte(script))); err != nil {
		return nil, fmt.Errorf("node %s: asking the shell: %w", n.name, err)
	}
	var code, size, errSize int
	if _, err := fmt.Fscanf(n.out, "%d %d %d\n", &code, &size, &errSize); err != nil {
		return nil, fmt.Errorf("node %s: hearing the shell: %w", n.name, err)
	}
	all := make([]byte, size+errSize)
	if _, err := io.ReadFull(n.out, all); err != nil {
		return nil, fmt.Errorf("node %s: hearing the shell: %w", n.name, err)
	}
	if code != 0 {
		return all[:size], fmt.Errorf("node %s: exit code %d: %s\n%s", n.name, code, all[size:], script)
	}
	return all[:size], nil
}

// docker runs docker with the node as last argument.
func (n *node) docker(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "docker", append(args, n.name)...).CombinedOutput(); err != nil {
		return fmt.Errorf("docker %s %s: %w\n%s", strings.Join(args, " "), n.name, err, out)
	}
	return nil
}

// logs returns what containers of the namespace have written on the node, of a node that can't be reached what was read last. The
// empty namespace is all.
func (n *node) logs(namespace string) ([]history.Log, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.shell == nil {
		return n.cached[namespace], nil
	}
	pattern := "*"
	if namespace != "" {
		pattern = namespace + "_*"
	}
	// The 1 is of a file that grew meanwhile.
	archive, err := n.run(`logs=(` + pattern + `); [ ${#logs[@]} = 0 ] || tar -cf - "${logs[@]}" || [ $? = 1 ]`)
	if err != nil {
		return nil, err
	}
	var logs []history.Log
	for files := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("node %s: reading logs: %w", n.name, err)
		}
		text, err := io.ReadAll(files)
		if err != nil {
			return nil, fmt.Errorf("node %s: reading logs: %w", n.name, err)
		}
		l := history.Log{Text: string(text)}
		if err := l.Parse(strings.ReplaceAll(header.Name, "+", "/")); err != nil {
			return nil, fmt.Errorf("node %s: %w", n.name, err)
		}
		logs = append(logs, l)
	}
	if n.cached == nil {
		n.cached = map[string][]history.Log{}
	}
	n.cached[namespace] = logs
	return logs, nil
}

// deaths are what the tests know of pods whose node was switched off.
var deaths struct {
	sync.Mutex
	list []history.Death
}

func died(at time.Duration, uids ...string) {
	deaths.Lock()
	defer deaths.Unlock()
	deaths.list = append(deaths.list, history.Death{UIDs: uids, At: at})
}

// allLogs are those of all nodes.
func allLogs(namespace string) (logs []history.Log, err error) {
	for _, n := range allNodes() {
		l, err := n.logs(namespace)
		if err != nil {
			return nil, err
		}
		logs = append(logs, l...)
	}
	return logs, nil
}

// boot is the clock of all logs.
func boot() time.Duration { return witness.Now() }
