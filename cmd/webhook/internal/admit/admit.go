// Package admit answers admission reviews with what package inject decides.
//
// It writes nothing anywhere, so a dry run is like any other request. What it
// changes, it changes by JSON patches that only touch what inject changed:
// fields that this build's API types do not know pass through as they came,
// wherever they are in the object.
//
// A refusal is one sentence. Requests that make no sense, because the webhook
// is registered for the wrong resource or somebody else calls it, are answered
// with status 400 and a reason; they do not panic and change nothing.
//
// Whoever reaches the port may send anything. The memory that bodies and the
// objects in them take is bounded, see Limits. The number of connections is not:
// that is up to the network.
package admit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/elector-io/elector/cmd/internal/object"
	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/inject"
)

// Pods returns the handler that adds the sidecar to pods that ask for it, at
// their creation. Anything else that happens to a pod is allowed unchanged.
// opts must be valid.
func Pods(opts inject.Options) admission.Handler {
	return &handler{
		kinds: map[schema.GroupKind]func() runtime.Object{
			{Kind: "Pod"}: func() runtime.Object { return &corev1.Pod{} },
		},
		version:    "v1",
		operations: map[admissionv1.Operation]bool{admissionv1.Create: true},
		decide: func(raw []byte, plain bool, obj, _ runtime.Object) ([]byte, []string, error) {
			pod := obj.(*corev1.Pod)
			warnings := inject.Warnings(pod, opts)
			patch, err := patchPod(raw, plain, pod, opts)
			return patch, warnings, err
		},
	}
}

// Workloads returns the handler that carries the elector.io annotations of a
// Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob to its pod
// template, and takes them back. opts must be valid.
//
// It should see every workload whose metadata, or whose template's metadata, has an
// annotation under elector.io/, before or after the change: the metadata for the
// carrying, the templates for refusals and warnings that a person reads. What looks
// like such an annotation may come to be warned of.
func Workloads(opts inject.Options) admission.Handler {
	return &handler{
		kinds: map[schema.GroupKind]func() runtime.Object{
			{Group: "apps", Kind: "Deployment"}:  func() runtime.Object { return &appsv1.Deployment{} },
			{Group: "apps", Kind: "StatefulSet"}: func() runtime.Object { return &appsv1.StatefulSet{} },
			{Group: "apps", Kind: "DaemonSet"}:   func() runtime.Object { return &appsv1.DaemonSet{} },
			{Group: "apps", Kind: "ReplicaSet"}:  func() runtime.Object { return &appsv1.ReplicaSet{} },
			{Group: "batch", Kind: "Job"}:        func() runtime.Object { return &batchv1.Job{} },
			{Group: "batch", Kind: "CronJob"}:    func() runtime.Object { return &batchv1.CronJob{} },
		},
		version:    "v1",
		operations: map[admissionv1.Operation]bool{admissionv1.Create: true, admissionv1.Update: true},
		decide: func(raw []byte, _ bool, obj, old runtime.Object) ([]byte, []string, error) {
			out, warnings, err := inject.Workload(obj, old, opts)
			if err != nil {
				return nil, warnings, err
			}
			patch, err := object.Patch(raw, obj, out)
			if err != nil {
				return nil, warnings, err
			}
			text, err := encode(patch)
			return text, warnings, err
		},
	}
}

// handler turns a review into objects, and has them decided upon.
type handler struct {
	kinds      map[schema.GroupKind]func() runtime.Object
	version    string
	operations map[admissionv1.Operation]bool
	// decide returns the JSON patch that makes of the object what it should be, nil if it
	// is that, and warnings even if there is an error. obj was read from raw, which is
	// plain or not; old is nil on creation.
	decide func(raw []byte, plain bool, obj, old runtime.Object) (patch []byte, warnings []string, err error)
}

// Handle implements admission.Handler.
func (h *handler) Handle(ctx context.Context, req admission.Request) admission.Response {
	kind := "other"
	if _, ok := h.kinds[schema.GroupKind{Group: req.Kind.Group, Kind: req.Kind.Kind}]; ok {
		kind = req.Kind.Kind
	}
	resp, err := h.handle(req)
	var refusal *elector.FieldError
	switch {
	case err == nil:
		outcome := outcomeUnchanged
		if len(resp.Patch) > 0 {
			outcome = outcomeChanged
			if klog.FromContext(ctx).V(2).Enabled() {
				logger(ctx, req).V(2).Info("admitted with changes", "kind", kind, "warnings", resp.Warnings)
			}
		}
		admissions.WithLabelValues(kind, outcome, "").Inc()
		return resp
	case errors.As(err, &refusal):
		admissions.WithLabelValues(kind, outcomeDenied, strings.TrimPrefix(refusal.Field, inject.Prefix)).Inc()
		logger(ctx, req).Info("denied", "kind", kind, "reason", refusal.Error())
		return failure(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, err, resp.Warnings)
	default:
		admissions.WithLabelValues(kind, outcomeFailed, "").Inc()
		logger(ctx, req).Error(err, "cannot answer an admission review", "kind", kind)
		if _, bad := errors.AsType[*badRequestError](err); bad {
			return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, err, nil)
		}
		return failure(http.StatusInternalServerError, metav1.StatusReasonInternalError, err, nil)
	}
}

// logger says with each line what the request is about.
func logger(ctx context.Context, req admission.Request) klog.Logger {
	return admission.DefaultLogConstructor(klog.FromContext(ctx), &req)
}

func failure(code int32, reason metav1.StatusReason, err error, warnings []string) admission.Response {
	return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{
		Result:   &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: err.Error()},
		Warnings: warnings,
	}}
}

// badRequestError is an error of whoever sent the review.
type badRequestError struct{ error }

func badRequestf(format string, args ...any) error {
	return &badRequestError{fmt.Errorf(format, args...)}
}

func (e *badRequestError) Unwrap() error { return e.error }

// handle returns the response, which has the warnings even if there is an error.
func (h *handler) handle(req admission.Request) (admission.Response, error) {
	newObject, ok := h.kinds[schema.GroupKind{Group: req.Kind.Group, Kind: req.Kind.Kind}]
	if !ok || req.Kind.Version != h.version {
		return admission.Response{}, badRequestf("this webhook does not handle %s, it is registered for the wrong resource", object.Shown(req.Kind))
	}
	switch req.Operation {
	case admissionv1.Create, admissionv1.Update:
	case admissionv1.Delete, admissionv1.Connect:
		return admission.Allowed(""), nil
	default:
		return admission.Response{}, badRequestf("this webhook does not know the operation %q", shorten(string(req.Operation)))
	}
	if !h.operations[req.Operation] || req.SubResource != "" {
		return admission.Allowed(""), nil
	}

	obj := newObject()
	plain, err := object.Decode(req.Object.Raw, req.Kind, obj)
	if err != nil {
		return admission.Response{}, badRequestf("reading the object: %w", err)
	}
	var old runtime.Object
	if req.Operation == admissionv1.Update {
		old = newObject()
		if _, err := object.Decode(req.OldObject.Raw, req.Kind, old); err != nil {
			return admission.Response{}, badRequestf("reading the old object: %w", err)
		}
	}
	patch, warnings, err := h.decide(req.Object.Raw, plain, obj, old)
	resp := admission.Allowed("").WithWarnings(warnings...)
	if len(patch) > 0 {
		resp.Patch, resp.PatchType = patch, new(admissionv1.PatchTypeJSONPatch)
	}
	return resp, err
}
