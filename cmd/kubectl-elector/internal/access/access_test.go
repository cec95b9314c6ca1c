package access_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-logr/logr/funcr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/klog/v2"

	"github.com/elector-io/elector/cmd/kubectl-elector/internal/access"
)

// TestQuiet shows that client-go writes no log beside the output.
func TestQuiet(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		timeout string
		answer  http.HandlerFunc
	}{
		"a warning": {"0", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Warning", `299 - "elector.io: of a pod that was tried out"`)
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"kind":"PodList","apiVersion":"v1"}`))
		}},
		"a timeout": {"10ms", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(test.answer)
			defer server.Close()
			flags := genericclioptions.NewConfigFlags(true)
			flags.APIServer, flags.Timeout = &server.URL, &test.timeout
			api, err := access.Connect(flags)
			if err != nil {
				t.Fatal(err)
			}
			ctx := klog.NewContext(t.Context(), funcr.New(func(_, text string) { t.Error("logged:", text) }, funcr.Options{}))
			if _, err := api.Client.CoreV1().Pods("shop").List(ctx, metav1.ListOptions{}); (err != nil) != (test.timeout != "0") {
				t.Error(err)
			}
		})
	}
}
