// Package role labels the candidates of every lock, so that a Service can select
// the leader: elector.io/role is "leader" on one pod of a lock at most, but for
// pods whose label cannot be written, and "standby" on the others.
//
// # What is guaranteed
//
// The order of writes: the label comes off the old leader, and the API server has
// said so, before it is put on the new one. Watches see writes in their order, so
// no watch sees two leaders of a lock as long as labels can be written, and what is made of a watch, such as
// the EndpointSlices of a Service, has one at most. As caches lag behind, a manager
// asks the API server for the labels of a lock's pods before it labels its first
// leader of the lock, and remembers its own writes from then on. A pod whose object
// is gone has no label and is not waited for. A pod that ended, even one that the
// lock still names, is no leader.
//
// With the label goes the annotation controller.kubernetes.io/pod-deletion-cost, in
// the same write, where a ReplicaSet made the leader: a scale-down spares it, and a
// rollout removes it last, so that the leader changes once. One that the pod has of
// its own, also since a moment ago, is neither changed nor taken away; the value
// candidates.LeaderCost counts as elector's, whoever wrote it. Where the annotation
// is not admitted the label is written without it.
//
// # What is not
//
// The label follows the lock, some milliseconds later: between two leaders there
// is none, and a leader that lost its claim without a trace in the lock (crashed,
// cut off) keeps the label until the next one has acquired it. Who must know for
// sure asks the pod, or uses the fencing token. Readiness is something else: a
// standby is ready, and a dead leader soon is not.
//
// A label that somebody else sets is put right, but seen until then: a pod
// template with elector.io/role: leader makes every new pod a leader for a moment.
// If the old leader's label cannot be removed, because an admission webhook denies
// it say, the new leader gets none, provided that this manager labelled the old one
// itself. Any other pod is waited for until it failed three times in a row: whoever
// may create pods can make one that is as large as the API server takes, so that
// nobody can write to it, with the leader's label. From then on it is tried again
// with pauses of up to two minutes, like each pod that fails, and keeps the label
// as long.
//
// Two managers do not work at the same time, except when one was frozen with a
// request under way for longer than its own lease; its write is then refused if the
// pod has changed since.
//
// # Where holders are known from
//
// Lock objects that elector made carry its label and come from a cache that
// selects by it and keeps no more than the holder. A renewal is decoded, compared
// and dropped. Lock objects that others made, adopted ones or those that a
// client-go program was first to create, lack the label; each of them that pods of
// ours contend for is read by its name instead, once the cache has not had it for
// some seconds, and watched if it is there. A lock that is not there is looked for
// again after half a minute, and costs no watch: when one of our candidates makes
// it, the cache has it. The watches share the manager's connection. There are 200
// at most, 50 of one namespace, none of objects with much metadata, and ten looks
// a second, by turns of the namespaces, so that in a namespace with thousands of
// such locks labels follow late. No object that is not a lock is kept.
package role
