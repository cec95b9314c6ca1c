package elector

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Mode is the way a leader is elected and stops being one.
type Mode string

const (
	// ModeLease elects with a coordination.k8s.io/v1 Lease: a leader that does
	// not renew in time is replaced.
	ModeLease Mode = "lease"
	// ModeLeaderForLife elects with a ConfigMap owned by the leader's Pod: a
	// leader stays one until its Pod is gone.
	ModeLeaderForLife Mode = "leader-for-life"
)

// The defaults of client-go's leader election, which the ecosystem's
// components use: https://pkg.go.dev/k8s.io/client-go/tools/leaderelection.
const (
	DefaultMode          = ModeLease
	DefaultLeaseDuration = 15 * time.Second
	DefaultRenewDeadline = 10 * time.Second
	DefaultRetryPeriod   = 2 * time.Second
)

// JitterFactor is how much longer than retry-period the renew-deadline has to
// be, so that at least one retry fits in; the value is client-go's.
const JitterFactor = 1.2

// maxLeaseDuration keeps the seconds within the Lease's int32 and a typing
// error (15h for 15s) from freezing a workload for longer than a day.
const maxLeaseDuration = 24 * time.Hour

// minRetryPeriod keeps retries from becoming a load on the API server.
const minRetryPeriod = 100 * time.Millisecond

// The names of the settings: flags are these after "--", annotations these
// after "elector.io/".
const (
	FieldLock          = "lock"
	FieldMode          = "mode"
	FieldLeaseDuration = "lease-duration"
	FieldRenewDeadline = "renew-deadline"
	FieldRetryPeriod   = "retry-period"
)

// Settings is what a user chooses about one election.
type Settings struct {
	// Lock is the name of the Lease or ConfigMap: a lower-case RFC 1123
	// subdomain of at most 253 characters. It has no default here.
	Lock string
	// Mode defaults to ModeLease.
	Mode Mode
	// LeaseDuration is how long standbys wait after the last sign of the leader;
	// whole seconds, because the Lease stores seconds. Default 15s, at most 24h.
	LeaseDuration time.Duration
	// RenewDeadline is how long a claim lasts after the last renew was sent.
	// Less than LeaseDuration; their ratio is the clock drift that is tolerated.
	// Default 10s, or in Parse two thirds of a LeaseDuration that is given.
	RenewDeadline time.Duration
	// RetryPeriod is the pause between tries after a failure; a leader makes it
	// shorter towards the end of its claim. At least 100ms and less than
	// RenewDeadline / JitterFactor. Default 2s, or in Parse a fifth of a
	// RenewDeadline that is given or follows.
	RetryPeriod time.Duration
}

// DefaultSettings returns the defaults, without a lock name.
func DefaultSettings() Settings {
	return Settings{
		Mode:          DefaultMode,
		LeaseDuration: DefaultLeaseDuration,
		RenewDeadline: DefaultRenewDeadline,
		RetryPeriod:   DefaultRetryPeriod,
	}
}

// FieldError says in one sentence which setting cannot be used and what is
// allowed.
type FieldError struct {
	// Field is the setting's name with the prefix its user knows it by:
	// "lease-duration", "--lease-duration", "elector.io/lease-duration".
	Field string
	// Value is what was given.
	Value string
	// Allowed says what would be accepted.
	Allowed string
}

// maxShownValue keeps a huge value from drowning the sentence.
const maxShownValue = 80

// Error returns the sentence.
func (e *FieldError) Error() string {
	return fmt.Sprintf("%s %q is not allowed: %s", e.Field, shorten(e.Value), e.Allowed)
}

// shorten cuts what somebody else wrote to a length that can be shown.
func shorten(s string) string {
	count := 0
	for i := range s {
		if count == maxShownValue {
			return s[:i] + "…"
		}
		count++
	}
	return s
}

// ParseSettings reads the settings that lookup knows and takes the defaults for
// the others, as Settings.Parse does.
func ParseSettings(prefix string, lookup func(field string) (value string, ok bool)) (Settings, error) {
	return DefaultSettings().Parse(prefix, lookup)
}

// Parse reads the settings that lookup knows, takes those of s for the others, and
// validates them together. prefix is put before the field names in errors, so that
// every front end refuses with the same words, and values are quoted as they were
// given. Every error is a *FieldError.
//
// A duration that is not given follows from the next longer one, in the proportion
// that s has: a lease-duration of 30s alone makes a renew-deadline of 20s and a
// retry-period of 4s out of the defaults.
func (s Settings) Parse(prefix string, lookup func(field string) (value string, ok bool)) (Settings, error) {
	parsed, given := s, map[string]string{}
	for _, f := range []struct {
		field string
		read  func(value string) (allowed string)
	}{
		{FieldLock, func(v string) string { parsed.Lock = v; return "" }},
		{FieldMode, func(v string) string { parsed.Mode = Mode(v); return "" }},
		{FieldLeaseDuration, readDuration(&parsed.LeaseDuration, "whole seconds with their unit, from 1s to "+short(maxLeaseDuration)+", such as 15s or 1m")},
		{FieldRenewDeadline, readDuration(&parsed.RenewDeadline, "a duration with its unit, such as 10s or 1500ms")},
		{FieldRetryPeriod, readDuration(&parsed.RetryPeriod, "a duration with its unit, such as 2s or 500ms")},
	} {
		v, ok := lookup(f.field)
		if !ok {
			continue
		}
		if allowed := f.read(v); allowed != "" {
			return Settings{}, &FieldError{Field: prefix + f.field, Value: v, Allowed: allowed}
		}
		given[f.field] = v
	}
	if _, ok := given[FieldRenewDeadline]; !ok {
		parsed.RenewDeadline = follow(s.RenewDeadline, s.LeaseDuration, parsed.LeaseDuration, 2*minRetryPeriod)
	}
	if _, ok := given[FieldRetryPeriod]; !ok {
		parsed.RetryPeriod = follow(s.RetryPeriod, s.RenewDeadline, parsed.RenewDeadline, minRetryPeriod)
	}
	if err := parsed.validate(prefix, given); err != nil {
		return Settings{}, err
	}
	return parsed, nil
}

// readDuration returns a function that says what is allowed if it cannot read a
// value.
func readDuration(to *time.Duration, allowed string) func(string) string {
	return func(value string) string {
		d, err := time.ParseDuration(value)
		if err != nil {
			return "use " + allowed
		}
		*to = d
		return ""
	}
}

// follow returns what d becomes when the longer duration is another than it was:
// in proportion, in whole milliseconds, and not less than least.
func follow(d, was, is, least time.Duration) time.Duration {
	if is == was || was < time.Millisecond {
		return d
	}
	// 24h in milliseconds, squared, is within an int64. A longer one is refused.
	return max(least, time.Duration(d.Milliseconds()*is.Milliseconds()/was.Milliseconds())*time.Millisecond)
}

// subdomain is the form of an object name in Kubernetes (RFC 1123).
var subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

const maxNameLength = 253

// Validate checks the settings one by one and against each other. prefix is put
// before the field names. The error is a *FieldError or nil.
func (s Settings) Validate(prefix string) error { return s.validate(prefix, nil) }

// validate is Validate that quotes what was given as it was given.
func (s Settings) validate(prefix string, given map[string]string) error {
	show := func(field string, d time.Duration) string {
		if v, ok := given[field]; ok {
			return v
		}
		return short(d)
	}
	lease, renew, retry := show(FieldLeaseDuration, s.LeaseDuration), show(FieldRenewDeadline, s.RenewDeadline), show(FieldRetryPeriod, s.RetryPeriod)
	refuse := func(field, value, allowed string, args ...any) error {
		return &FieldError{Field: prefix + field, Value: value, Allowed: fmt.Sprintf(allowed, args...)}
	}
	leastDeadline := time.Duration(JitterFactor * float64(minRetryPeriod))
	switch {
	case len(s.Lock) > maxNameLength:
		return refuse(FieldLock, s.Lock, "a name has at most %d characters, this one has %d", maxNameLength, len(s.Lock))
	case !subdomain.MatchString(s.Lock):
		return refuse(FieldLock, s.Lock, "use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit")
	case s.Mode != ModeLease && s.Mode != ModeLeaderForLife:
		return refuse(FieldMode, string(s.Mode), "use %s or %s", ModeLease, ModeLeaderForLife)
	case s.LeaseDuration < time.Second || s.LeaseDuration > maxLeaseDuration || s.LeaseDuration%time.Second != 0:
		return refuse(FieldLeaseDuration, lease, "use whole seconds from 1s to %s, because the Lease stores seconds", short(maxLeaseDuration))
	case s.RenewDeadline <= 0 || s.RenewDeadline >= s.LeaseDuration:
		return refuse(FieldRenewDeadline, renew, "it must be above 0s and below %s (%s)", prefix+FieldLeaseDuration, lease)
	case s.RenewDeadline <= leastDeadline:
		return refuse(FieldRenewDeadline, renew, "it must be above %s, so that a retry fits in", leastDeadline)
	case s.RetryPeriod < minRetryPeriod:
		return refuse(FieldRetryPeriod, retry, "it must be at least %s", short(minRetryPeriod))
	case time.Duration(JitterFactor*float64(s.RetryPeriod)) >= s.RenewDeadline:
		return refuse(FieldRetryPeriod, retry, "%g times it must be below %s (%s), so that a retry fits in", JitterFactor, prefix+FieldRenewDeadline, renew)
	}
	return nil
}

// short prints a duration as a person writes it: 15s, 1m, 24h, not 24h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
