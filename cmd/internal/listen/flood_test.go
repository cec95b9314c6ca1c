package listen

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// come is a connection from an address.
type come struct {
	net.Conn
	from *net.TCPAddr
}

func (c come) RemoteAddr() net.Addr { return c.from }

// dialFrom is dial from an address of one's own.
func (b *bed) dialFrom(address byte, text string) net.Conn {
	client, server := net.Pipe()
	b.Cleanup(func() { client.Close() })
	b.network.arrivals <- arrival{conn: come{server, &net.TCPAddr{IP: net.IPv4(10, 0, 0, address), Port: b.kept()}}}
	if text != "" {
		go func() { _, _ = io.WriteString(client, text) }() // until it is read, or refused
	}
	return client
}

// testConfig is test with more to say about the listener.
func testConfig(t *testing.T, c Config, do func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{T: t, network: &network{arrivals: make(chan arrival), closed: make(chan struct{})}}
		b.listener = newListener(b.network, c)
		b.stop = b.serve(klog.NewContext(t.Context(), logr.Discard()))
		defer b.stop()
		do(b)
	})
}

// A client that floods the port takes places from itself: another one's connections stay, though they have waited longer.
func TestFloodTakesItsOwn(t *testing.T) {
	t.Parallel()
	storms := map[string]string{
		"silent":         "",
		"half a header":  "POST / HTTP/1.1\r\nHost: x\r\nX: y",
		"half a body":    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
		"endless chunks": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
	}
	for name, send := range storms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testConfig(t, Config{Handler: reads, Bodies: true, Places: 64}, func(b *bed) {
				var servers []net.Conn
				for range 25 { // what an API server keeps
					c := b.dialFrom(1, get)
					answer(c)
					servers = append(servers, c)
				}
				time.Sleep(turn)
				for range 10 * b.Places {
					b.dialFrom(2, send)
				}
				for i, c := range servers {
					go func() { _, _ = io.WriteString(c, get) }()
					if status, _ := answer(c); status != http.StatusOK {
						b.Errorf("connection %d of the API server's is answered with %d", i, status)
					}
				}
				began := time.Now()
				if status, _ := answer(b.dialFrom(1, get)); status != http.StatusOK {
					b.Errorf("a new one is answered with %d", status)
				}
				if waited := time.Since(began); waited > turn+2*tick {
					b.Errorf("a new one waits %v", waited)
				}
			})
		})
	}
}

// reads takes all of a body in before it answers.
var reads = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusRequestTimeout)
		return
	}
	_, _ = io.WriteString(w, "read")
})

// Where bodies are read, connections are kept after them.
func TestBodies(t *testing.T) {
	t.Parallel()
	testConfig(t, Config{Handler: reads, Bodies: true}, func(b *bed) {
		c := b.dial("")
		answers := bufio.NewReader(c)
		for range 3 {
			go func() {
				_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"+string(make([]byte, 100000)))
			}()
			if status, body := nextAnswer(answers); status != http.StatusOK || body != "read" {
				b.Fatalf("answered with %d %q", status, body)
			}
		}
		go func() {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
		}()
		began := time.Now()
		if status, _ := nextAnswer(answers); status != http.StatusRequestTimeout || time.Since(began) != bodyTimeout {
			b.Errorf("half a body is answered with %d after %v", status, time.Since(began))
		}
	})
}

// Answers are left alone for a while also when all places are taken by them.
func TestPatience(t *testing.T) {
	t.Parallel()
	const patience = 6 * time.Second
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(patience - time.Second):
			w.WriteHeader(http.StatusNoContent)
		case <-r.Context().Done():
		}
	})
	testConfig(t, Config{Handler: slow, Bodies: true, Places: 8, Patience: patience}, func(b *bed) {
		var conns []net.Conn
		for range 8 {
			conns = append(conns, b.dial("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"))
		}
		b.settle()
		last := b.dial(get)
		for i, c := range conns {
			if status, _ := answer(c); status != http.StatusNoContent {
				b.Errorf("answer %d is %d", i, status)
			}
		}
		if status, _ := answer(last); status != http.StatusNoContent {
			b.Errorf("the one that waited is answered with %d", status)
		}
	})
}

// certificate is one that nobody checks.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Encrypted connections are bounded as others are, from their first byte on, and their headers are counted inside.
func TestEncrypted(t *testing.T) {
	t.Parallel()
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MinVersion: tls.VersionTLS12}
	encrypted := func(c net.Conn) net.Conn {
		return tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}) //nolint:gosec // it is this test's
	}
	testConfig(t, Config{Handler: reads, Bodies: true, Encrypt: func(c net.Conn) net.Conn { return tls.Server(c, config) }, Places: 32}, func(b *bed) {
		good := encrypted(b.dialFrom(1, ""))
		ask := func(request string, want int) {
			b.Helper()
			go func() { _, _ = io.WriteString(good, request) }()
			if status, _ := answer(good); status != want {
				b.Errorf("answered with %d, want %d", status, want)
			}
		}
		ask(get, http.StatusOK)
		time.Sleep(turn)
		for range b.Places {
			b.dialFrom(2, "")                           // no handshake
			b.dialFrom(3, "\x16\x03\x01\x40\x00\x01")   // half of one
			b.dialFrom(4, get)                          // none at all
			c := encrypted(b.dialFrom(5, ""))           // nothing after it
			go func() { _, _ = c.Read(nil) }()          // which begins it
			_ = c.SetDeadline(time.Now().Add(turn / 2)) // it may be thrown out meanwhile
		}
		if got := b.held(); got > b.Places {
			b.Errorf("%d connections have a place", got)
		}
		ask(get, http.StatusOK)
		long := make([]byte, maxHeader)
		for i := range long {
			long[i] = 'x'
		}
		ask("GET / HTTP/1.1\r\nHost: x\r\nX: "+string(long)+"\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge)
		b.settle()
		if status, _ := answer(good); status != 0 {
			b.Error("the connection is open after that")
		}
	})
}

// An encrypted connection that is not read does not hold up the one that takes its place.
func TestNoFarewell(t *testing.T) {
	t.Parallel()
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MinVersion: tls.VersionTLS12}
	testConfig(t, Config{Handler: reads, Encrypt: func(c net.Conn) net.Conn { return tls.Server(c, config) }, Places: 1}, func(b *bed) {
		raw := b.dialFrom(1, "")
		if err := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}).Handshake(); err != nil { //nolint:gosec // it is this test's
			b.Fatal(err)
		}
		// What is left of the handshake is not read, nor is anything else.
		time.Sleep(turn)
		began := time.Now()
		b.dialFrom(2, "")
		for b.settle(); b.in(waiting) != 1 || isOpenRaw(raw); b.settle() {
			time.Sleep(tick)
			if time.Since(began) > time.Second {
				b.Fatal("it holds its place")
			}
		}
	})
}

// Whoever forgot to encrypt is told so.
func TestNotEncrypted(t *testing.T) {
	t.Parallel()
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MinVersion: tls.VersionTLS12}
	testConfig(t, Config{Handler: reads, Encrypt: func(c net.Conn) net.Conn { return tls.Server(c, config) }}, func(b *bed) {
		c := b.dialFrom(1, get)
		if status, text := answer(c); status != http.StatusBadRequest || text != "this is HTTPS, and the request was not encrypted\n" {
			b.Errorf("answered with %d %q", status, text)
		}
		if status, _ := answer(b.dialFrom(1, "hello, who is there?")); status != 0 {
			b.Errorf("garbage is answered with %d", status)
		}
	})
}

// A client whose body is too large reads why, and is not cut off in the middle of it.
func TestBodyOfNoUse(t *testing.T) {
	t.Parallel()
	refuses := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		http.Error(w, "no", http.StatusRequestEntityTooLarge)
	})
	testConfig(t, Config{Handler: refuses, Bodies: true}, func(b *bed) {
		began := time.Now()
		c := b.dialFrom(1, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\nx")
		if status, _ := answer(c); status != http.StatusRequestEntityTooLarge {
			b.Errorf("answered with %d", status)
		}
		_, _ = io.Copy(io.Discard, c)
		if time.Since(began) == 0 {
			b.Error("the connection is closed at once, which would take the answer back")
		}
	})
}

// isOpenRaw drops what is to be read.
func isOpenRaw(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(tick))
	_, err := io.Copy(io.Discard, conn)
	return err != nil
}
