// Package grant lets the ServiceAccounts of injected pods touch their lock, and
// no other object.
//
// For every lock that a pod contends for there is one Role in the pod's
// namespace, elector:<lease|configmap>:<lock>, with the lock's name as
// resourceName ("create" apart, which cannot be limited to a name), and one
// RoleBinding per ServiceAccount, elector:<lease|configmap>:<lock>:<account>.
// They are put right when edited or deleted, and removed with the last pod that
// needs them. A pod needs them from its creation until it is gone or its phase is
// Succeeded or Failed: the containers of such a pod are dead for good, so a
// finished Job does not hold on to a grant, while a pod that is being deleted
// keeps it to release its lock.
//
// A lock object that exists and is not elector's (no label
// app.kubernetes.io/managed-by: elector, or a ConfigMap with data) is granted only
// if it carries the annotation elector.io/adopt: "true". Otherwise the pods get a
// Warning Event, and what was granted is taken back, which is also told on the
// object. So it is with a Role or RoleBinding of a grant's name that is not
// elector's: it is neither used nor changed.
//
// # When
//
// Pods must be able to make their lock when no manager is there, so a name is
// granted before there is an object of it, and somebody else may make that. What
// is granted is therefore looked at again. Objects with elector's label are in the
// cache, so that their coming, going, and losing the label are news. Other locks
// that pods contend for (absent, adopted, or refused) are watched by their names
// as long as there are few, and looked at every half a minute at the latest, at
// no more than 100 looks a second in all.
//
// In leader-for-life a lock that nobody chose is granted only when no pod contends
// any more for the lock by the name that older managers gave it. Workloads of
// different kinds that meet on a lock which none of them chose get a Warning Event.
//
// # What a pod's word is worth
//
// Lock and mode are read from the pod, and whoever may create pods may write
// there what they like. What they gain by it: their pod's ServiceAccount, which
// they could use anyway, may touch one Lease or ConfigMap of a valid name in the
// pod's own namespace, which either does not exist or is an elector lock, so
// they could as well have written elector.io/lock. The namespace is the border of
// trust. What is not prevented: to claim the name of an object before somebody
// else creates it, and to use that until the manager has looked. What pods can do
// in this time, they can do to the label, too: the chart's policy keeps those who
// have no other rights to an object from marking it as elector's.
package grant
