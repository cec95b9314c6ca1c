package subject

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// echo reads the body as injectors do, and makes a few allocations.
func echo(times int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/mutate" || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			http.Error(w, "no review", http.StatusBadRequest)
			return
		}
		for range times {
			sink = make([]byte, 1<<10)
		}
		_, _ = w.Write(body)
	})
}

var sink []byte

// TestMeasure compares a handler with one that does more: what the measuring itself takes is in both.
func TestMeasure(t *testing.T) {
	body := []byte(`{"kind":"AdmissionReview"}`)
	found := map[int]Review{}
	for _, times := range []int{0, 100} {
		r, err := measure(t.Context(), echo(times), "/mutate", body, 50*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.Answer, body) || len(r.CPU) == 0 {
			t.Errorf("%d reviews were answered, the last with %s", len(r.CPU), r.Answer)
		}
		found[times] = r
	}
	more, kilobytes := found[100].Allocations-found[0].Allocations, (found[100].Allocated-found[0].Allocated)/(1<<10)
	if more < 99 || more > 101 || kilobytes < 99 || kilobytes > 101 {
		t.Errorf("100 allocations of a kilobyte more are shown as %.1f of %.1f kilobytes", more, kilobytes)
	}
	if found[0].Allocations > 20 {
		t.Errorf("to measure a handler that does hardly anything takes %.0f allocations", found[0].Allocations)
	}
}

// TestRefused holds that an injector that answers quickly because it refuses is not measured.
func TestRefused(t *testing.T) {
	_, err := measure(t.Context(), echo(0), "/other", []byte(`{}`), time.Hour)
	if err == nil || !strings.Contains(err.Error(), "status 400: no review") {
		t.Error("a status that is not 200 was taken for an answer:", err)
	}
}

func TestServe(t *testing.T) {
	s, err := serve(echo(0))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(s.ca))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	response, err := client.Post(s.url+"/mutate", "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if answer, err := io.ReadAll(response.Body); err != nil || string(answer) != `{}` {
		t.Errorf("it answered %q, %v", answer, err)
	}
	client.CloseIdleConnections()
	if err := s.close(); err != nil {
		t.Error("it did not end:", err)
	}
}
