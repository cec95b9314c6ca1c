//go:build race

package main

// stormClients are few: storms, sidecar and API server share one process here, which the race detector makes ten times slower.
const stormClients = 20
