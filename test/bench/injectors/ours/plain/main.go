// Command plain is the usual way to write such a webhook, as a subject of test/bench/injectors: controller-runtime decodes the pod, elector's
// package inject adds the sidecar, and PatchResponseFromRaw compares what came with what it has become.
//
// The pod gets what elector's webhook gives it. It is the way there that differs.
package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/elector-io/elector/inject"
	"github.com/elector-io/elector/test/bench/injectors/subject"
)

const path = "/mutate"

func main() { os.Exit(subject.Main(path, prepare)) }

func prepare(context.Context) (http.Handler, error) {
	ctrl.SetLogger(klog.Background())
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	// The chart's values are the defaults of the options.
	options := inject.Options{Image: "ghcr.io/elector-io/elector:v1.0.0", Version: "v1.0.0"}
	server := webhook.NewServer(webhook.Options{})
	server.Register(path, &webhook.Admission{Handler: injector{admission.NewDecoder(scheme), options}})
	return server.WebhookMux(), options.Validate()
}

type injector struct {
	decoder admission.Decoder
	options inject.Options
}

func (i injector) Handle(_ context.Context, req admission.Request) admission.Response {
	pod := &corev1.Pod{}
	if err := i.decoder.Decode(req, pod); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	injected, err := inject.Pod(pod, i.options)
	if err != nil {
		return admission.Errored(http.StatusUnprocessableEntity, err)
	}
	raw, err := json.Marshal(injected)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(req.Object.Raw, raw)
}
