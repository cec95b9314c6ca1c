// Package subject is what the programs around each injector share: it measures a handler in its own process, then serves it over HTTPS, so
// that another process can measure that. All of them do it in the same way, and only the handler differs.
//
// It is a module of its own, because the injectors need versions of Kubernetes' libraries that exclude each other.
package subject

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// Report is what a subject says of itself. It is one line of JSON on file descriptor 3: injectors log to standard output.
type Report struct {
	// URL is where it serves until its standard input ends, and CA who signed for that, in PEM.
	URL, CA string
	// Versions are those of the modules that it is made of, by path.
	Versions map[string]string
	// Reviews is what was measured of each file, in their order.
	Reviews []Review
}

// Review is what it takes to answer a review, called one after the other without TLS and a network.
type Review struct {
	// CPU is the CPU time of each, of the thread that answered. Garbage that other threads collect is not in it.
	CPU []time.Duration
	// Whole is the CPU time of the process for each, with the garbage collector, on average.
	Whole time.Duration
	// Allocations and Allocated are how many, and how many bytes, for each on average.
	Allocations, Allocated float64
	// Answer is the last answer.
	Answer json.RawMessage
}

// reportFile is the file descriptor that the report is written to.
const reportFile = 3

// Main is the program of a subject: prepare makes the handler, which answers reviews that are sent to path.
func Main(path string, prepare func(context.Context) (http.Handler, error)) (exitCode int) {
	if err := run(context.Background(), os.Args[1:], path, prepare); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func run(ctx context.Context, args []string, path string, prepare func(context.Context) (http.Handler, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	flags := flag.NewFlagSet(os.Args[0], flag.ContinueOnError)
	window := flags.Duration("for", time.Second, "how long reviews of each file are answered while that is measured")
	if err := flags.Parse(args); err != nil {
		return err
	}
	handler, err := prepare(ctx)
	if err != nil {
		return fmt.Errorf("preparing the injector: %w", err)
	}
	report := Report{Versions: versions()}
	for _, file := range flags.Args() {
		body, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading a review: %w", err)
		}
		found, err := measure(ctx, handler, path, body, *window)
		if err != nil {
			return err
		}
		report.Reviews = append(report.Reviews, found)
	}
	s, err := serve(handler)
	if err != nil {
		return err
	}
	report.URL, report.CA = s.url+path, s.ca
	to := os.NewFile(reportFile, "report")
	if err := errors.Join(json.NewEncoder(to).Encode(report), to.Close()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, s.close())
}

// versions are those that the linker noted.
func versions() map[string]string {
	found := map[string]string{}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, m := range build.Deps {
			found[m.Path] = m.Version
		}
	}
	return found
}

const (
	// warm is how many reviews do not count, and most is of those that do.
	warm, most = 50, 1 << 16
)

// measure answers the review again and again.
func measure(ctx context.Context, h http.Handler, path string, body []byte, window time.Duration) (r Review, err error) {
	c := call{body: body, answer: answer{header: http.Header{}}}
	c.request, err = http.NewRequestWithContext(ctx, http.MethodPost, "https://injector.example"+path, nil)
	if err != nil {
		return r, fmt.Errorf("making a request: %w", err)
	}
	c.request.Header.Set("Content-Type", "application/json")
	c.request.ContentLength, c.request.RemoteAddr = int64(len(body)), "192.0.2.1:1234"
	runtime.LockOSThread() // the CPU clock is the thread's
	defer runtime.UnlockOSThread()
	for range warm {
		if err := c.send(h); err != nil {
			return r, err
		}
	}
	r.CPU = make([]time.Duration, 0, most) // beforehand: what is allocated is counted
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	whole, began := clock(unix.CLOCK_PROCESS_CPUTIME_ID), time.Now()
	for time.Since(began) < window && len(r.CPU) < most {
		used := clock(unix.CLOCK_THREAD_CPUTIME_ID)
		err := c.send(h)
		r.CPU = append(r.CPU, clock(unix.CLOCK_THREAD_CPUTIME_ID)-used)
		if err != nil {
			return r, err
		}
	}
	n := len(r.CPU)
	r.Whole = (clock(unix.CLOCK_PROCESS_CPUTIME_ID) - whole) / time.Duration(n)
	runtime.ReadMemStats(&after)
	r.Allocations = float64(after.Mallocs-before.Mallocs) / float64(n)
	r.Allocated = float64(after.TotalAlloc-before.TotalAlloc) / float64(n)
	r.Answer = bytes.Clone(c.answer.body.Bytes())
	return r, nil
}

// clock reads a clock that Linux always has.
func clock(id int32) time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(id, &ts)
	return time.Duration(ts.Nano())
}

// call is a request that is made once and sent often, so that what is measured is the handler alone.
type call struct {
	request *http.Request
	body    []byte
	answer  answer
}

func (c *call) send(h http.Handler) error {
	reader := bytes.NewReader(c.body)
	c.request.Body = io.NopCloser(reader)
	c.answer.reset()
	h.ServeHTTP(&c.answer, c.request)
	if c.answer.status != http.StatusOK {
		return fmt.Errorf("a review was answered with status %d: %s", c.answer.status, &c.answer.body)
	}
	return nil
}

// answer keeps its memory from one review to the next.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) reset() {
	clear(a.header)
	a.status = http.StatusOK
	a.body.Reset()
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
