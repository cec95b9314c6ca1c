// Package gate runs a program only while its candidate leads: on the leader it is
// started, and it is over before the claim is.
//
// # How it works
//
// A gate stands before the program, in its container. It waits until the status
// directory speaks of a claim of which enough is left, takes a share of the lock
// (flock(2)) on the file gate.lock there, looks again, and starts the program as its
// child, which inherits the lock.
//
// When the claim ends because it is given up, the child gets SIGTERM, and the elector
// goes on to renew its lease, and tells until when it is held, until the lock on the
// file is free. When the claim is about to end because it could not be renewed, the child
// gets SIGTERM a grace before that, and SIGKILL KillMargin before: by the gate's own
// clock, so no living sidecar and no API server is needed.
//
// The kernel keeps the lock for as long as any process has the file open that inherited
// it. So it is the proof that the child is dead, and all that it started: it survives
// the death of gate and elector, and an elector does not release, resume or acquire
// while it is held.
//
// What a gate does is decided by Machine, which is pure.
//
// # What is guaranteed
//
// In lease mode the child runs within one claim, as long as its gate runs; and so no two
// candidates' children run at a time, by the promise of package elector.
//
// # What is not
//
// A gate that is frozen alone, while its child runs on, can't stop it: the elector then
// does not release, but the lease runs out. It is killed when the gate goes on. A child
// that closes the files it inherited takes itself out of the proof: the gate has the lock
// as well, so this matters only to one whose gate is killed. Let the storage compare
// fencing tokens.
package gate
