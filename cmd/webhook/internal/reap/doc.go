// Package reap frees the locks of Pods that ended while they held them: evicted
// ones, those of a node that shut down, finished Jobs. The next leader follows at
// once instead of after the lease, or after the Pod object is gone.
//
// # When a Pod is dead
//
// A claim must not be ended from outside while its application may still run, so
// the kubelet has to have said that it does not. A terminal phase alone does not
// say so. In Kubernetes 1.36 two components write one:
//
//   - The kubelet, only when no container can be running any more (mergePodStatus
//     in pkg/kubelet/status/status_manager.go holds the phase back until then).
//     The same status says of every container that it is terminated or was never
//     started, and gives PodFailed or PodCompleted as the reason of the condition
//     Ready (pkg/kubelet/status/generate.go).
//   - The pod garbage collector (markFailedAndDeletePodWithCondition in
//     pkg/controller/podgc/gc_controller.go), before it deletes a Pod whose node
//     is gone or is tainted out-of-service. It sets the phase, for a node that is
//     gone also the condition DisruptionTarget with reason DeletionByPodGC, and
//     leaves the rest as the kubelet last reported it. Its processes may run on.
//
// So a Pod is dead when its phase is Failed or Succeeded, its condition Ready has
// one of the kubelet's two reasons, elector's container is terminated, and every
// other container is terminated or was never started. A Pod that a kubelet refused
// after its own restart has no container statuses; it is not taken for dead. A
// phase is never left again, nor is a UID used again, so an old copy of a dead Pod
// is as good as a new one.
//
// Everything else leaves the lock alone: a Pod object that vanished, by force or
// by the garbage collector; a Pod on a node that is not ready; a Pod that was
// evicted by the API or by a taint and still terminates. What the node says about
// itself plays no part: one that shuts down is not ready either, and its kubelet
// does report the dead.
//
// # What is freed
//
// The lock that the Pod names, in its namespace, if its holder is the Pod's name
// and UID, and if it is elector's or adopted. It is freed the way its holder would
// have done it: a Lease by one update against the version that was read, marked as
// released so that nobody waits for a claim that cannot exist any more; a
// ConfigMap by deletion with its UID and version as preconditions.
//
// # Holders that are no candidates
//
// If pods contend for a lock and its holder is none of them, the Pod of that name
// and UID is judged, whatever made it: an evicted leader that uses operator-lib
// would block the others for ever. As nobody watches it, it is looked at every ten
// seconds, less often only if there are more than 500 such locks. A Pod without
// the sidecar is dead when one of its containers is terminated, and every other one
// is or was never started.
//
// # What is not promised
//
// Whoever may write a Pod's status can have its lock freed. A runtime whose
// "kubelet" does not write those reasons gets no reaping; its locks are freed as
// if there were no manager. In leader-for-life a write that the dead Pod had sent
// before may take the lock after it was freed: the news of that brings the reaper
// back, unless the lock was adopted and so is not in the cache; then it is freed
// with the Pod object.
package reap
