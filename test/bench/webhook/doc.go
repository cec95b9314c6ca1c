// Command webhook measures what the webhook and the manager cost, and writes docs/benchmarks-webhook.md: `make bench`.
//
// The manager is installed by Helm with the chart's values, two replicas, on one embedded cluster. No pod that is created runs: a
// scheduling gate keeps it from that.
//
// # What is measured
//
//   - What the webhook adds to a pod's create: pairs of pods that differ in the annotations alone, created one after the other by one
//     client, now the one and now the other first. The difference is taken within each pair, so that slow phases are in both.
//   - How long a review takes at 100 reviews per second. Each is due at a time that is fixed beforehand and is sent then, whether the one
//     before has been answered or not; its time counts from when it was due. A client that waited for answers would leave out just those
//     reviews that come while the manager is slow.
//   - How many reviews per second the manager answers over 8 connections, and how much CPU time each takes.
//   - The handler alone: BenchmarkReview of cmd/webhook/internal/admit with the same review and with one of 60 KB, and inject.Add.
//   - Grants: from sending a pod's create to the RoleBinding of its lock, as a watch of this program sees it; one pod at a time, and 2,000
//     pods at once, with what the manager's processes use meanwhile.
//   - 20,000 pods: what the manager's processes use when as many come, and when they start beside them. These are copies of pods that have
//     the sidecar already, of which the webhook hears nothing.
//   - What a grant waits for: the same Role and RoleBinding, made by users with different rights, beside the API server's own metric of
//     how long reads wait for a watch cache.
//
// The manager's memory and CPU time are those of its processes, as the kernel tells.
//
// # What is not
//
// Network and storage: everything is on one machine. An API server far from the manager adds its round trip to each review.
//
// Admission by several API servers, and failing replicas: the integration tests roll and kill replicas, and count failures.
//
// What sidecars make of a grant: pods whose sidecars elect are in test/bench.
package main
