// Package history tells from the logs of candidates and of their applications whether two of them led at a time.
//
// All times are of CLOCK_BOOTTIME, which every container on a machine shares: nodes of a kind cluster can be compared to the
// nanosecond. Of nodes on several machines these logs prove nothing.
package history
