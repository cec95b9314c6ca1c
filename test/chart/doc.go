// Package chart tests the Helm chart: what it renders, what it refuses, and, with the build tag integration, that a real API server
// accepts all of it and that installing, upgrading and uninstalling it leaves elected workloads alone.
//
// Helm is the one that the embedded cluster brings, so `make bin/cluster` comes before. Without it the tests are skipped.
package chart
