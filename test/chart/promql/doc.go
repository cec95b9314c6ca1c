// Package promql tests the chart's alerts and dashboard with Prometheus' own parser and engine. It is a module of its own, so that
// Prometheus stays out of elector's. Go does not see that what it reads lies outside of the module: run it with -count 1.
package promql
