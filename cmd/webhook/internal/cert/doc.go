// Package cert keeps the webhook's serving certificate and the caBundle by which
// API servers trust it.
//
// Two sources of certificates: Self makes them, Files reads what somebody else
// (cert-manager, a user) puts into a directory. Check is the readiness check for
// both: it does what an API server does, a TLS handshake against the caBundle in
// the live MutatingWebhookConfiguration.
//
// Self guarantees that a rotation fails no admission, as long as API servers see
// a changed configuration within a tenth of the serving certificate's lifetime
// (at most ten minutes): a new CA is published beside the old one first, signs
// later, and the old one stays in the bundle until nothing it signed can be in
// use. That is why this is not one of the known libraries: cert-controller's
// rotator swaps a single CA, and cert-manager's authority shares its CA through
// a Secret but does not write the overlap into the configuration.
//
// All replicas share the CAs through one Secret and act alike; none of them has
// to lead. Writes carry the resourceVersion they were decided on, and decisions
// are functions of the objects and of the API server's time (policy.go), so
// replicas that race end up with the same result. What a replica's own clock shows
// changes nothing, see ServerClock. Serving keys never leave the process.
//
// A Secret that is emptied, expired, from the future, or holds garbage or somebody
// else's CAs gets the CAs that this process still remembers, and a new one if none
// is valid: to empty it is to renew the CA. What is served stays until the new CA
// has settled. A CA from the future is never kept, nor signed with, nor published.
// One that has expired is kept until another has taken its place: a clock may be
// wrong. A Secret that is missing is not made anew, as the manager may not create
// Secrets; the replicas that know its CAs go on with them.
//
// What is not guaranteed: when the Secret is lost while no replica runs, or while
// one starts, the first admissions of what started then may fail until API servers
// have seen the new bundle. A caBundle that somebody changes fails admissions until
// the replicas have mended it and API servers have seen that. API servers whose
// clocks differ by more than an hour undo each other's work. And a replica that is
// cut off from the API for longer than a third of its certificate's lifetime (by
// default more than two days) may not be trusted any more.
package cert
