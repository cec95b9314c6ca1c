// Package gatekeeper is what a sidecar does for the containers of its pod that are
// behind the gate (package gate): it brings them the wrapper that starts them, knows
// from a file lock whether anything that a wrapper started may still live, and
// answers the kubelet's probes for containers in which nothing runs yet.
package gatekeeper
