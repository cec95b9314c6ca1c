// Command failover measures how leadership follows the application and whoever steers it, and writes docs/benchmarks-failover.md:
// `make bench`.
//
// Pods run as processes of the embedded cluster, with bin/elector as their sidecar, or test/bench/peer, which does with client-go what a
// sidecar has to. The application in them is test/witness/app: it writes down when it knows that it leads, on a clock that all share.
//
// # What is measured
//
//   - A broken leader: from the moment the leader's application begins to crash, or is not Ready any more, to the next leader's application
//     knowing that it leads. Each lock is broken once, because the manager waits longer with every handover of a lock.
//   - A switchover: from sending the request to the next leader's application knowing. client-go has none; the nearest is to delete the
//     leader's pod, which is measured of both.
//   - Leader changes per rollout: how often the lock changes hands while a Deployment or a StatefulSet is rolled out, beside the same on a
//     cluster that the manager was never installed on.
//   - The manager at rest: CPU time of its replicas, and what it writes by the API server's audit log, with many elected pods in whose
//     elections nothing happens. These are no processes: there are as many as make the manager's work larger than what a measurement
//     is off by.
//
// # What is not
//
// The kubelet's part: here a container that crashes is started again ten times as soon, and a probe's result reaches the API server within
// milliseconds. docs/e2e.md has the same times with real kubelets.
//
// An application that takes long to start, or to stop: they do so within milliseconds here.
package main
