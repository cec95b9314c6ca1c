// Command bench measures elector beside client-go's LeaderElector and writes docs/benchmarks.md with its plots: `make bench`.
//
// Both run at the same time, on the same machine, on one embedded cluster without the manager, each on Leases of its own and with the
// default settings. Whatever disturbs a run disturbs both, so that the ratios hold where the absolute figures do not.
//
// # What is measured
//
//   - Graceful handover: from asking the leader to leave (what SIGTERM does) to the next one's OnStartedLeading.
//   - Crash takeover: from the moment the leader's connections are cut, with nothing released, to the next one's OnStartedLeading.
//   - Start to first claim: from a candidate without a client, on a Lease that does not exist yet, to its OnStartedLeading.
//   - Demotion: from sending the write that names another holder in the Lease to the deposed leader's OnStoppedLeading.
//   - Requests at rest: what a leader and its standbys send while nothing happens, by verb.
//   - The sidecar as a process: elector as its image has it beside test/bench/peer, which does with client-go what a sidecar has to, built with
//     the same flags, in pods. Binary size, memory, what one more costs a node, CPU time.
//   - The sidecar in a storm: its memory, its answers and its claim while clients do their worst to its ports, see test/storm.
//   - Many locks: what 500 locks of three candidates each cost at rest: CPU time, the API server's memory, connections, bytes on the wire.
//     Their leaders leave, all at the same moment and a hundred of them one after the other; how long each lock is without one, and how many
//     writes are refused. The API server is killed and comes again; when all are back, how many at a time, and how many claims are lost. Each
//     implementation has a cluster of its own for this, because an API server does not give memory back.
//
// For latencies and requests candidates are goroutines of this program, in groups that share a Lease. Each has connections of its own
// and no rate limit. After every handover the one that left is replaced, and a pause is drawn at random, so that renewals and polls
// are in no step with what is measured.
//
// # What is not
//
// Network and storage: everything is on one machine, where a request takes milliseconds. Add the round trips of your cluster, for both.
//
// The time from a pod's deletion to the sidecar's SIGTERM, and the kubelet's start of a new one: they are Kubernetes' and the
// application's. The sidecar's writing of the leader file, well under a millisecond, is not among the latencies either.
//
// Whether two ever lead at a time: that is what test/sim is for.
package main
