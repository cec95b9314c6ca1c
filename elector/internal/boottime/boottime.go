// Package boottime tells the time by CLOCK_BOOTTIME: it goes on while the machine is
// suspended, nobody can set it, and all processes of one kernel read the same.
package boottime
