//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/elector-io/elector/elector"
)

// witnessVariable makes the test binary the app in a pod.
const witnessVariable = "ELECTOR_TEST_WITNESS"

// sight is what an app sees in its status directory at one moment: one line of its log.
type sight struct {
	At time.Time
	// Leads tells whether the leader file is there, Name what is in it.
	Leads bool
	Name  string
	// Status is status.json.
	Status elector.Status
	// Ends is the last line, when the app is told to stop.
	Ends bool
	// First is in the first line only.
	First *first
}

// first is what an app finds when it starts.
type first struct {
	// Env are the variables meant for apps.
	Env map[string]string
	// WriteError is what an attempt to forge a leader file brought; ReadOnly tells whether it was EROFS.
	WriteError string
	ReadOnly   bool
	// Token tells whether the app has been given the sidecar's ServiceAccount token.
	Token bool
}

// testify writes every change of the status directory to stdout until SIGTERM.
func testify() (exitCode int) {
	if err := watchStatus(os.Getenv("ELECTOR_STATUS_DIR")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func watchStatus(dir string) error {
	inotify, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(inotify, dir, unix.IN_DELETE|unix.IN_MOVED_TO); err != nil {
		return fmt.Errorf("watching %q: %w", dir, err)
	}
	var mu sync.Mutex
	lines := json.NewEncoder(os.Stdout)
	write := func(s sight) error {
		mu.Lock()
		defer mu.Unlock()
		return lines.Encode(s)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() { // ends the process
		<-end
		_ = write(sight{At: time.Now(), Ends: true})
		os.Exit(0)
	}()
	s, err := look(dir)
	if err != nil {
		return err
	}
	s.First = lookAround(dir)
	if err := write(s); err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for {
		n, err := unix.Read(inotify, buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("inotify: %w", err)
		}
		if removed(buffer[:n]) {
			// It may be there again already, which look would not tell.
			if err := write(sight{At: time.Now()}); err != nil {
				return err
			}
		}
		if s, err = look(dir); err != nil {
			return err
		}
		if err := write(s); err != nil {
			return err
		}
	}
}

// removed tells whether the leader file was deleted. An event is four numbers, the first the watch, the second the mask, the last the
// length of the name after them.
func removed(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := uint32(events[4]) | uint32(events[5])<<8 | uint32(events[6])<<16 | uint32(events[7])<<24
		length := int(events[12]) | int(events[13])<<8
		name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+length]), "\x00")
		if mask&unix.IN_DELETE != 0 && name == elector.LeaderFile {
			return true
		}
		events = events[unix.SizeofInotifyEvent+length:]
	}
	return false
}

func look(dir string) (sight, error) {
	s := sight{At: time.Now()}
	name, err := os.ReadFile(filepath.Join(dir, elector.LeaderFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	s.Leads, s.Name = err == nil, strings.TrimSpace(string(name))
	data, err := os.ReadFile(filepath.Join(dir, elector.StatusFile))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(data, &s.Status)
}

func lookAround(dir string) *first {
	err := os.WriteFile(filepath.Join(dir, elector.LeaderFile), nil, 0o600)
	f := &first{ReadOnly: errors.Is(err, syscall.EROFS), WriteError: fmt.Sprint(err), Env: map[string]string{}}
	for _, name := range []string{"ELECTOR_STATUS_DIR", "ELECTOR_URL", "POD_NAME"} {
		f.Env[name] = os.Getenv(name)
	}
	_, err = os.Stat("/var/run/secrets/kubernetes.io/serviceaccount/token")
	f.Token = err == nil
	return f
}
