package listen

import (
	"bufio"

	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// network is a listener without a network, so that time may be virtual. A write to it waits until it is read.
type network struct {
	arrivals chan arrival
	accepted atomic.Int64 // calls of Accept that returned
	closing  sync.Once
	closed   chan struct{}
}

// arrival is what Accept returns.
type arrival struct {
	conn net.Conn
	err  error
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case a := <-n.arrivals:
		n.accepted.Add(1)
		return a.conn, a.err
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.closing.Do(func() { close(n.closed) })
	return nil
}

func (n *network) Addr() net.Addr { return &net.TCPAddr{} }

// bed is a listener that serves, and its clients.
type bed struct {
	*testing.T
	network *network
	*listener
	told atomic.Int64
	stop func()
}

// test runs do in virtual time, beside a listener that serves.
func test(t *testing.T, handler http.Handler, do func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{T: t, network: &network{arrivals: make(chan arrival), closed: make(chan struct{})}}
		b.listener = newListener(b.network, Config{Handler: handler, IsStream: func(r *http.Request) bool { return r.URL.Path == "/stream" }})
		b.tell = func() { b.told.Add(1) }
		b.stop = b.serve(klog.NewContext(t.Context(), logr.Discard()))
		defer b.stop()
		do(b)
	})
}

// dial connects without waiting for a place, and sends text.
func (b *bed) dial(text string) net.Conn {
	client, server := net.Pipe()
	b.Cleanup(func() { client.Close() })
	b.network.arrivals <- arrival{conn: server}
	if text != "" {
		go func() { _, _ = io.WriteString(client, text) }() // until it is read, or refused
	}
	return client
}

// settle waits until nothing moves without time passing.
func (b *bed) settle() { synctest.Wait() }

// in is how many connections are in a phase.
func (b *bed) in(p phase) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count()[p]
}

// kept is how many connections have not ended.
func (b *bed) kept() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns)
}

// held is how many connections have a place.
func (b *bed) held() int { return b.in(fresh) + b.in(waiting) + b.in(busy) }

// answer reads one; status is 0 if the connection ends instead.
func answer(conn net.Conn) (status int, body string) { return nextAnswer(bufio.NewReader(conn)) }

func nextAnswer(from *bufio.Reader) (status int, body string) {
	response, err := http.ReadResponse(from, nil)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	data, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(data)
}

// isOpen tells whether a connection of which nothing is to be read is open.
func isOpen(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now())
	_, err := conn.Read(make([]byte, 1))
	_ = conn.SetReadDeadline(time.Time{})
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

const (
	get       = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	getStream = "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
)

// hello answers with a word, and /stream with one now and then.
var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/stream" || r.Method != http.MethodGet {
		_, _ = io.WriteString(w, "hello")
		return
	}
	control := http.NewResponseController(w)
	for {
		_ = control.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := io.WriteString(w, "hello\n"); err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-time.After(answerTimeout):
		case <-r.Context().Done():
			return
		}
	}
})

// A client that asks is answered, whatever holds all places, and no more than these are held.
func TestStormIsDisplaced(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		send   string
		then   func(net.Conn)
		reason string
	}{
		"silent":            {reason: "a connection costs the client nothing"},
		"half a header":     {send: "GET / HTTP/1.1\r\nHost: x\r\nX: y", reason: "so does the begin of a request"},
		"kept alive":        {send: get, then: func(c net.Conn) { answer(c) }, reason: "an answered client needs no place"},
		"half a body":       {send: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", reason: "the handler has not begun"},
		"endless body":      {send: "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", reason: "nor has it here"},
		"answer not read":   {send: get, reason: "it is written for as long as nobody reads it"},
		"second not read":   {send: get + get, then: func(c net.Conn) { answer(c) }, reason: "the first one was, but it waits for the second"},
		"silent streams":    {send: getStream, reason: "they are writing, too"},
		"garbage":           {send: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", reason: "TLS where there is none"},
		"garbage, answered": {send: "x\r\n\r\n", reason: "it waits for the answer to be read"},
	}
	for name, storm := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, hello, func(b *bed) {
				for range 3 * maxConns {
					c := b.dial(storm.send)
					if storm.then != nil {
						storm.then(c)
					}
				}
				if got := b.held(); got > maxConns {
					b.Errorf("%s: %d connections have a place, %d may", storm.reason, got, maxConns)
				}
				if status, _ := answer(b.dial(get)); status != http.StatusOK {
					b.Errorf("%s: the client that asks is answered with %d", storm.reason, status)
				}
				if all := b.kept(); all > maxConns+maxStreams+maxEnding {
					b.Errorf("%d connections are kept", all)
				}
			})
		})
	}
}

// The connection that has waited longest goes first, counted from its last answer.
func TestOldestGoes(t *testing.T) {
	t.Parallel()
	test(t, hello, func(b *bed) {
		var conns []net.Conn
		for range maxConns {
			conns = append(conns, b.dial(""))
			time.Sleep(tick)
		}
		go func() { _, _ = io.WriteString(conns[0], get) }()
		if status, _ := answer(conns[0]); status != http.StatusOK {
			b.Fatalf("the oldest is answered with %d", status)
		}
		b.settle()
		for range 2 {
			conns = append(conns, b.dial(""))
			b.settle()
		}
		for i, c := range conns {
			if got, want := isOpen(c), i != 1 && i != 2; got != want {
				b.Errorf("connection %d: open %v, want %v", i, got, want)
			}
		}
	})
}

// A connection keeps its place for its turn, so that who is slow on a busy machine can ask.
func TestTurn(t *testing.T) {
	t.Parallel()
	test(t, hello, func(b *bed) {
		began := time.Now()
		var conns []net.Conn
		for range maxConns {
			conns = append(conns, b.dial(""))
		}
		if status, _ := answer(b.dial(get)); status != http.StatusOK {
			b.Errorf("answered with %d", status)
		}
		if waited := time.Since(began); waited < turn || waited > turn+2*tick {
			b.Errorf("a place was given away after %v, a turn is %v", waited, turn)
		}
		gone := 0
		for _, c := range conns {
			if !isOpen(c) {
				gone++
			}
		}
		if gone != 1 {
			b.Errorf("%d connections are closed for one", gone)
		}
	})
}

// An answer is cut off only if all places are taken by answers, and its handler is told then.
func TestAnswersGoLast(t *testing.T) {
	t.Parallel()
	var ended atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			ended.Add(1)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	test(t, handler, func(b *bed) {
		const slow = "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
		first := b.dial(slow)
		b.settle()
		go func() { _, _ = io.WriteString(first, get) }() // net/http sees no end of the connection behind a second request
		b.settle()
		for range 2 * maxConns {
			b.dial("")
		}
		b.settle()
		if ended.Load() > 0 || b.in(busy) != 1 {
			b.Fatal("an answer was cut off for a connection that says nothing")
		}
		for range maxConns - 1 {
			b.dial(slow)
		}
		b.settle()
		if ended.Load() > 0 || b.in(busy) != maxConns {
			b.Fatalf("%d answers were cut off for connections that say nothing, %d go on", ended.Load(), b.in(busy))
		}
		if status, _ := answer(b.dial(get)); status != http.StatusNoContent {
			b.Errorf("the last client is answered with %d", status)
		}
		b.settle()
		if ended.Load() != 1 || isOpen(first) {
			b.Errorf("%d answers were cut off, want the oldest", ended.Load())
		}
	})
}

// Streams have places of their own; the oldest goes for a new one, and none is timed as other answers are.
func TestStreams(t *testing.T) {
	t.Parallel()
	test(t, hello, func(b *bed) {
		var streams []*bufio.Reader
		open := func() {
			r := bufio.NewReader(b.dial(getStream))
			if response, err := http.ReadResponse(r, nil); err != nil { //nolint:bodyclose // it goes on
				b.Fatal(err)
			} else if _, err := response.Body.Read(make([]byte, 6)); err != nil {
				b.Fatal(err)
			}
			streams = append(streams, r)
			time.Sleep(turn)
		}
		for range maxStreams {
			open()
		}
		for range 2 * maxConns {
			b.dial("")
		}
		if got := b.in(streaming); got != maxStreams {
			b.Fatalf("%d streams of %d", got, maxStreams)
		}
		open()
		b.settle()
		if got := b.in(streaming); got != maxStreams {
			b.Errorf("%d streams, %d may be", got, maxStreams)
		}
		if _, err := streams[0].ReadByte(); !errors.Is(err, io.EOF) {
			b.Errorf("the oldest stream goes on: %v", err)
		}
		// Past every timeout.
		last := streams[len(streams)-1]
		for range 10 {
			if line, err := last.ReadString('h'); err != nil {
				b.Fatalf("a stream ends after %q: %v", line, err)
			}
		}
	})
}

// A stream that has ended is a connection like others, and needs a place.
func TestStreamThatEnds(t *testing.T) {
	t.Parallel()
	var end chan struct{}
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-end })
	test(t, handler, func(b *bed) {
		end = make(chan struct{})
		var streams []net.Conn
		for range maxStreams {
			streams = append(streams, b.dial(getStream))
		}
		b.settle() // they have their own places
		for range maxConns {
			b.dial("")
		}
		b.settle() // the last one has its place
		close(end)
		for _, c := range streams {
			answer(c)
		}
		b.settle()
		if got := b.held(); got != maxConns+maxStreams {
			b.Fatalf("%d connections wait", got)
		}
		b.dial("")
		time.Sleep(turn + 2*maxStreams*tick) // one goes at each tick
		b.settle()
		if got := b.held(); got != maxConns {
			b.Errorf("%d connections have a place, %d may", got, maxConns)
		}
	})
}

// Whose place it is that a new connection takes.
func TestVictim(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		of     [phases]int
		want   phase
		none   bool
		reason string
	}{
		"anybody waits":     {of: [phases]int{fresh: 1, waiting: 1, busy: 9, streaming: 9, ending: 9}, want: waiting, reason: "nobody misses its place"},
		"nobody waits":      {of: [phases]int{busy: 1, streaming: 9, ending: 9}, want: busy, reason: "an answer that takes so long is not read"},
		"nobody waits yet":  {of: [phases]int{fresh: 1, busy: 9}, none: true, reason: "the fresh one will, or will be done"},
		"nobody is there":   {none: true, reason: "out of descriptors for another reason"},
		"streams alone":     {of: [phases]int{streaming: 9}, none: true, reason: "they have places of their own"},
		"those that ended":  {of: [phases]int{ending: 9}, none: true, reason: "they have no place any more"},
		"all are new":       {of: [phases]int{fresh: 9}, none: true, reason: "they have not had their turn"},
		"one waits for all": {of: [phases]int{waiting: 1, busy: 9}, want: waiting, reason: "answers go last"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newListener(nil, Config{})
			for p, n := range test.of {
				for range n {
					l.conns[&conn{phase: phase(p)}] = struct{}{}
				}
			}
			switch got := l.victim(); {
			case test.none && got != nil:
				t.Errorf("%s: phase %d", test.reason, got.phase)
			case !test.none && (got == nil || got.phase != test.want):
				t.Errorf("%s: %+v, want phase %d", test.reason, got, test.want)
			}
		})
	}
}

// A connection that was closed stays so, whatever its handler does.
func TestEndingIsForGood(t *testing.T) {
	t.Parallel()
	c := &conn{phase: ending}
	if c.enter(busy, time.Time{}); c.phase != ending {
		t.Errorf("it is in phase %d", c.phase)
	}
}

// A header is refused for its size at once: a connection that is kept for a while after that holds a place.
func TestHeader(t *testing.T) {
	t.Parallel()
	lines := func(n int) string { // in all
		var b strings.Builder
		b.WriteString("GET / HTTP/1.1\r\nHost: x\r\n")
		for i := range n - 3 {
			fmt.Fprintf(&b, "X%d:\r\n", i)
		}
		return b.String() + "\r\n"
	}
	long := func(n int) string { // in all
		const begin, end = "GET / HTTP/1.1\r\nHost: x\r\nX: ", "\r\n\r\n"
		return begin + strings.Repeat("x", n-len(begin)-len(end)) + end
	}
	tests := map[string]struct {
		send   string
		want   []int
		reason string
	}{
		"long":             {send: long(maxHeader), want: []int{200}, reason: "a mesh may add much"},
		"too long":         {send: long(maxHeader + 1), want: []int{431, 0}, reason: "the bound"},
		"much too long":    {send: long(1 << 20), want: []int{431, 0}, reason: "8 of these were the end of a sidecar"},
		"many lines":       {send: lines(maxLines), want: []int{200}, reason: "a browser behind a mesh"},
		"too many lines":   {send: lines(maxLines + 1), want: []int{431, 0}, reason: "each takes 25 times its size"},
		"line by line":     {send: strings.TrimSuffix(lines(2*maxLines), "\r\n"), want: []int{431, 0}, reason: "it need not have an end"},
		"long first line":  {send: "GET /" + strings.Repeat("x", maxHeader), want: []int{431, 0}, reason: "it is of the header, too"},
		"counted anew":     {send: long(maxHeader), want: []int{200, 200, 200}, reason: "each request has a header"},
		"second too long":  {send: get, want: []int{200, 431, 0}, reason: "the second has one, too"},
		"blank lines":      {send: strings.Repeat("\r\n", maxHeader), want: []int{431, 0}, reason: "none of them begins a request"},
		"options for none": {send: "OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", want: []int{413, 0}, reason: "net/http has a handler of its own for it"},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, hello, func(b *bed) {
				began := time.Now()
				conn := b.dial("")
				answers := bufio.NewReader(conn)
				for i, want := range c.want {
					send := c.send
					if name == "second too long" && i > 0 {
						send = long(2 * maxHeader)
					}
					go func() { _, _ = io.WriteString(conn, send) }()
					if status, body := nextAnswer(answers); status != want || strings.Contains(body, "HTTP/") {
						b.Fatalf("%s: answer %d is %d %q, want %d", c.reason, i, status, body, want)
					}
				}
				b.settle()
				if c.want[len(c.want)-1] == 0 && (b.kept() > 0 || time.Since(began) > 0) {
					b.Errorf("%s: the connection is kept for %v", c.reason, time.Since(began))
				}
			})
		})
	}
}

// Handlers get no body, and what comes after one is not parsed.
func TestBody(t *testing.T) {
	t.Parallel()
	post := func(length int, body string) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", length, body)
	}
	chunked := func(size int) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", size, strings.Repeat("x", size))
	}
	tests := map[string]struct {
		send   string
		want   []int
		after  time.Duration
		reason string
	}{
		"none":                {send: post(0, "") + get, want: []int{200, 200}, reason: "what curl -X POST sends"},
		"small":               {send: post(2, "{}") + get, want: []int{200, 0}, reason: "some clients send one always"},
		"small, chunked":      {send: chunked(2) + get, want: []int{200, 0}, reason: "some do not know its length"},
		"large":               {send: post(maxBody+1, strings.Repeat("x", maxBody+1)), want: []int{413, 0}, reason: "nobody wants it"},
		"large, to come":      {send: post(1<<30, ""), want: []int{413, 0}, reason: "its length is enough"},
		"large, chunked":      {send: chunked(maxBody + 1), want: []int{413, 0}, reason: "the length is not known before"},
		"slow":                {send: post(9, "x"), want: []int{413, 0}, after: bodyTimeout, reason: "the handler must not wait for it"},
		"slow, after a while": {send: "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", want: []int{413, 0}, after: bodyTimeout, reason: "nor for its end"},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var handled atomic.Int64
			handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				handled.Add(1)
				if n, err := io.Copy(io.Discard, r.Body); n > 0 || err != nil {
					t.Errorf("the handler reads %d bytes, %v", n, err)
				}
			})
			test(t, handler, func(b *bed) {
				began := time.Now()
				answers := bufio.NewReader(b.dial(c.send))
				for i, want := range c.want {
					if status, _ := nextAnswer(answers); status != want {
						b.Errorf("%s: answer %d is %d, want %d", c.reason, i, status, want)
					}
				}
				if took := time.Since(began); took != c.after {
					b.Errorf("%s: it took %v, want %v", c.reason, took, c.after)
				}
				if want := strings.Count(fmt.Sprint(c.want), "200"); int(handled.Load()) != want {
					b.Errorf("%s: handled %d, want %d", c.reason, handled.Load(), want)
				}
			})
		})
	}
}

// Every wait for a client ends, also if nobody wants its place.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		send    string
		answers int
		reads   bool          // whatever comes after these
		every   time.Duration // sends a byte
		want    time.Duration
	}{
		"silent":         {want: headerTimeout},
		"half a header":  {send: "GET /", reads: true, want: headerTimeout},
		"slow header":    {send: "GET /", reads: true, every: time.Second / 2, want: headerTimeout},
		"idle":           {send: get, answers: 1, want: idleTimeout},
		"second header":  {send: get + "GET /", answers: 1, reads: true, want: headerTimeout},
		"unread answer":  {send: get, want: answerTimeout},
		"unread refusal": {send: strings.Repeat("x", 2*maxHeader), want: answerTimeout},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, hello, func(b *bed) {
				began := time.Now()
				conn := b.dial(c.send)
				for range c.answers {
					answer(conn)
				}
				if c.reads {
					go func() { _, _ = io.Copy(io.Discard, conn) }()
				}
				if c.every > 0 {
					var sender sync.WaitGroup
					defer sender.Wait()
					sender.Go(func() {
						for {
							time.Sleep(c.every)
							if _, err := io.WriteString(conn, "x"); err != nil {
								return
							}
						}
					})
				}
				for b.settle(); b.kept() > 0; b.settle() {
					time.Sleep(time.Second / 4)
					if time.Since(began) > time.Hour {
						b.Fatal("it is open for an hour")
					}
				}
				if took := time.Since(began); took != c.want {
					b.Errorf("closed after %v, want %v", took, c.want)
				}
			})
		})
	}
}

// Out of descriptors, a listener gives back what nobody uses, and pauses before it tries again.
func TestOutOfDescriptors(t *testing.T) {
	t.Parallel()
	test(t, hello, func(b *bed) {
		oldest := b.dial("")
		time.Sleep(turn)
		b.dial("")
		b.settle()
		began, before := time.Now(), b.network.accepted.Load()
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case b.network.arrivals <- arrival{err: &net.OpError{Op: "accept", Err: syscall.EMFILE}}:
				case <-stop:
					return
				}
			}
		}()
		b.settle()
		if isOpen(oldest) || b.held() != 1 {
			b.Errorf("it keeps %d connections, want the younger of 2", b.held())
		}
		time.Sleep(time.Minute)
		if calls := b.network.accepted.Load() - before; calls > 100 {
			b.Errorf("it tried %d times in %v", calls, time.Since(began))
		}
		close(stop)
		time.Sleep(time.Second)
		if status, _ := answer(b.dial(get)); status != http.StatusOK {
			b.Errorf("afterwards it answers with %d", status)
		}
	})
}

// Handlers that do not end hold what a listener keeps within bounds, and new clients wait for them.
func TestHandlersThatHang(t *testing.T) {
	t.Parallel()
	var running atomic.Int64
	var goOn chan struct{}
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		running.Add(1)
		defer running.Add(-1)
		<-goOn
	})
	test(t, handler, func(b *bed) {
		goOn = make(chan struct{}) // in the bubble, so that time passes while they wait
		var arrived atomic.Int64
		for range 4 * maxConns {
			go func() {
				b.dial(get)
				arrived.Add(1)
			}()
		}
		time.Sleep(time.Minute)
		b.settle()
		if got := running.Load(); got > maxConns+maxEnding || got < maxConns {
			b.Errorf("%d handlers run", got)
		}
		close(goOn)
		b.settle()
		if status, _ := answer(b.dial(get)); status != http.StatusOK {
			b.Errorf("once they have ended it answers with %d", status)
		}
		if got := int(arrived.Load()); got != 4*maxConns {
			b.Errorf("%d clients of %d got in", got, 4*maxConns)
		}
	})
}

// A listener ends while a client waits for its place.
func TestStop(t *testing.T) {
	t.Parallel()
	test(t, hello, func(b *bed) {
		for range maxConns {
			b.dial("")
		}
		last := b.dial("")
		b.stop()
		b.settle()
		if isOpen(last) || b.kept() > 0 {
			b.Errorf("%d connections are open, the last one: %v", b.kept(), isOpen(last))
		}
	})
}

// It is said once a minute that there are more clients than places.
func TestTell(t *testing.T) {
	t.Parallel()
	test(t, hello, func(b *bed) {
		for range 2 * maxConns {
			b.dial("")
		}
		if got := b.told.Load(); got != 1 {
			b.Errorf("said %d times", got)
		}
		time.Sleep(tellEvery)
		b.settle()
		for range 2 * maxConns {
			b.dial("")
		}
		if got := b.told.Load(); got != 2 {
			b.Errorf("said %d times in two minutes", got)
		}
	})
}

// small is a connection that notes its buffers.
type small struct {
	net.Conn
	read, write int
}

func (s *small) SetReadBuffer(bytes int) error  { s.read = bytes; return nil }
func (s *small) SetWriteBuffer(bytes int) error { s.write = bytes; return nil }

// The kernel's buffers are charged to the container as well.
func TestBuffers(t *testing.T) {
	t.Parallel()
	test(t, hello, func(b *bed) {
		client, server := net.Pipe()
		defer client.Close()
		s := &small{Conn: server}
		b.network.arrivals <- arrival{conn: s}
		b.settle()
		if s.read != readBuffer || s.write != writeBuffer {
			b.Errorf("buffers of %d and %d bytes", s.read, s.write)
		}
	})
}

// Serve says why it can't listen, and answers if it can.
func TestServe(t *testing.T) {
	t.Parallel()
	if _, err := Serve(t.Context(), "127.0.0.1:port", hello, nil); err == nil {
		t.Error("it listens on a port without a number")
	}
}
