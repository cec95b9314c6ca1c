// Package elector elects one leader among candidates and tells each of them,
// all the time, whether it leads.
//
// # How it works
//
// Candidates share a lock, one object that the API server changes only for
// whoever has seen its latest state. In lease mode the holder renews the lock; a
// standby that has seen no renewal for lease-duration takes over. In
// leader-for-life the lock belongs to the leader's Pod and goes with it.
//
// Standbys watch the lock and send nothing. A leader renews three times within
// renew-deadline. When it leaves it ends its claim first, waits until the work has
// ended, then frees the lock, and the standbys see that within milliseconds.
//
// A candidate holds a lock by what this very process wrote, and knows its writes by
// the note that they leave. To be named by the lock means nothing.
//
// The package knows no Kubernetes client: package kube has the locks, and package
// memory has some for tests. What a candidate does is decided by a pure core
// (candidate.go), which testdata/candidate describes event by event.
//
// # What is guaranteed
//
// In lease mode at most one candidate claims to lead at any moment, as long as
// the clocks of their machines run at rates that differ by less than
// lease-duration / renew-deadline, 1.5 by default. What the clocks show does not
// matter, nor does a machine that was suspended, a network that loses, delays or
// cuts, or an API server that fails.
//
// In leader-for-life at most one living Pod claims to lead. Clocks play no part.
// A leader that can't reach the API server stays leader.
//
// Every claim carries a fencing token that is larger than that of any claim of
// another candidate before it.
//
// # What is not
//
// A claim says nothing about what the application does. One that looked at its
// status and is then frozen before it writes will write late, whatever the
// election does: let the storage compare fencing tokens.
//
// A process that is frozen or killed can't remove its leader file. In lease mode
// status.json says until when it may be believed, by CLOCK_BOOTTIME and by the wall
// clock of the machine; the latter must not be set back meanwhile.
//
// Somebody who deletes the lock or writes another holder into it tells the
// candidates that the leader is dead. A living leader steps down when it sees
// that. In lease mode those who knew it, or do not know what they missed, wait for
// its lease to run out; a candidate that started later can't know it, and in
// leader-for-life there is nothing to wait for.
//
// Fencing tokens are resourceVersions. Where the datastore is restored from a
// backup they grow for those who saw the higher ones only.
package elector
