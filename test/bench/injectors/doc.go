// Command injectors measures elector's webhook beside those of others, and writes docs/benchmarks-injectors.md: `make bench`.
//
// The others are the plainest handler that controller-runtime makes (ours/plain), Dapr's sidecar injector and Istio's, each of a released
// version and configured as its chart does by default. They are programs of their own, in Go modules of their own: they need versions of
// Kubernetes' libraries that exclude each other. What measures is the same in all, module subject.
//
// # What is measured
//
//   - The handler alone: an AdmissionReview as bytes goes in through ServeHTTP and bytes come out, one review after the other on one thread.
//     Its CPU time for each review, that of the whole process with the garbage collector on average, and what is allocated.
//   - How many reviews per second are answered over HTTPS and 8 connections, each of which sends the next one when the last is answered,
//     and what CPU time that takes the injector.
//   - The size of the answer, and which fields of a pod that no injector knows are still there when its patch has been applied.
//
// A round measures all of them, one after the other, in processes that begin anew; there are several, so that a slow phase of the machine
// meets all. The reviews are the same for all: one of a usual pod and one ten times as large, that ask each of them for its sidecar.
//
// # What is not
//
// What an injector does besides: Dapr's asks the API server for its configuration for each review, which is in memory here, and Istio's
// keeps up with its configuration. Their own HTTPS servers: all handlers are served by net/http's.
//
// The worth of what is injected. They insert different sidecars, and look at different things in a pod; the page says what.
package main
