package admit

import (
	"bytes"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	admissionv1 "k8s.io/api/admission/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
)

var reviewFile = flag.String("review", "", "file of the review that BenchmarkServe sends (default: one of a small pod)")

// BenchmarkServe answers one review after the other, without a network. Besides
// the mean it tells quantiles, of the time and of the CPU time: what else the
// machine does is in the first and hardly in the second.
func BenchmarkServe(b *testing.B) {
	body := review(b, admissionv1.AdmissionRequest{Kind: podKind, Operation: admissionv1.Create, Object: kruntime.RawExtension{Raw: toJSON(b, electedPod)}})
	if *reviewFile != "" {
		var err error
		if body, err = os.ReadFile(*reviewFile); err != nil {
			b.Fatal(err)
		}
	}
	h := NewLimits().Serve(Pods(options))
	runtime.LockOSThread() // the CPU clock is the thread's
	defer runtime.UnlockOSThread()
	var took, cpu []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/mutate", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		began, used := time.Now(), threadTime(b)
		h.ServeHTTP(w, r)
		cpu, took = append(cpu, threadTime(b)-used), append(took, time.Since(began))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
	slices.Sort(took)
	slices.Sort(cpu)
	for unit, value := range map[string]time.Duration{
		"p50-ns": took[len(took)/2], "p99-ns": took[len(took)*99/100], "cpu-p50-ns": cpu[len(cpu)/2], "cpu-p99-ns": cpu[len(cpu)*99/100],
	} {
		b.ReportMetric(float64(value.Nanoseconds()), unit)
	}
}

func threadTime(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
