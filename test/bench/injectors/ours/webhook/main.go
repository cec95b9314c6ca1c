// Command webhook is elector's webhook for pods as a subject of test/bench/injectors.
package main

import (
	"context"
	"net/http"
	"os"

	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/elector-io/elector/cmd/webhook/internal/admit"
	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/bench/injectors/subject"
)

const path = "/mutate-pod"

func main() { os.Exit(subject.Main(path, prepare)) }

// prepare registers the handler as the manager does.
func prepare(context.Context) (http.Handler, error) {
	ctrl.SetLogger(klog.Background())
	// The chart's values are the defaults of the options.
	options := inject.Options{Image: "ghcr.io/elector-io/elector:v1.0.0", Version: "v1.0.0"}
	server := webhook.NewServer(webhook.Options{})
	server.Register(path, admit.NewLimits().Serve(admit.Pods(options)))
	return server.WebhookMux(), options.Validate()
}
