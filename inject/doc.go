// Package inject decides what the elector sidecar adds to a pod and what the
// annotations of a workload add to its pod template.
//
// Everything here is a pure function: no I/O, no clock, no client, and no
// argument is ever written to. The same input gives the same output, so the
// webhook, the tests and a command line can share it.
package inject
