// Package inject decides what the elector sidecar adds to a pod and what the
// annotations of a workload add to its pod template. Template does both at once, for
// clusters without the webhook, and Undo takes it back.
//
// Everything here is a pure function: no I/O, no clock, no client, and no
// argument is ever written to. The same input gives the same output, so the
// webhook, the tests and a command line can share it.
//
// # What is guaranteed
//
// Injecting twice is injecting once, also when other mutators have added or
// re-ordered containers in between: the sidecar that is there is kept as it is,
// and containers that came later get what the first ones got. Nothing is removed
// from a pod and nothing that was there is changed, but for the commands and probes of
// containers behind a gate, which Undo makes what they were. The QoS class Guaranteed is
// kept. Every annotation is either obeyed or refused with a *elector.FieldError,
// one sentence that names the annotation, its value and what is allowed; keys
// under elector.io/ that nobody knows are reported by Warnings. On a copy of an
// injected pod an annotation that was changed is refused, as its sidecar stays.
//
// # What is not
//
// A pod without any requests and limits becomes Burstable, because the sidecar
// has requests: without them autoscalers and quotas that count containers would
// stop working for the pod. The lock's default name follows from the workload's
// name, so two workloads of different kinds with one name in one namespace contend
// for the same lock unless elector.io/lock tells them apart. Whether the pod is valid
// otherwise is left to the API server.
//
// A gate is not put before what mutators add to a pod after it got its sidecar, and a
// probe that they add to a container behind the gate is not led through it. Fields that
// this build's types do not know stay in a probe that another replaces.
package inject
