package elector

import (
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Description says who contends for what: the one place for it. Whoever makes a
// Lock is given it, and everybody else asks the Lock.
type Description struct {
	// Settings are the election's; all candidates of a lock should have the same.
	// Zero durations and an empty mode mean the defaults. The lock's name has none.
	Settings Settings
	// Namespace is the lock's. Required for a lock in a cluster.
	Namespace string
	// Identity names this candidate in the lock; see the function Identity. No other
	// candidate may have it, and the same process after a restart should. In
	// leader-for-life it is a Pod's, which will own the lock. Required.
	Identity string
}

// FieldIdentity is the name of the identity in errors, like the settings' names.
const FieldIdentity = "identity"

// FieldNamespace is the name of the namespace in errors.
const FieldNamespace = "namespace"

// label is the form of a namespace's name in Kubernetes (RFC 1123).
var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

const maxNamespaceLength = 63

// maxIdentityLength is enough for a name of Kubernetes with a UID, and keeps an
// identity from becoming a burden to everybody who reads the lock.
const maxIdentityLength = 512

// WithDefaults returns d with the documented defaults for zero values.
func (d Description) WithDefaults() Description {
	s, defaults := &d.Settings, DefaultSettings()
	if s.Mode == "" {
		s.Mode = defaults.Mode
	}
	for _, value := range []struct{ is, byDefault *time.Duration }{
		{&s.LeaseDuration, &defaults.LeaseDuration}, {&s.RenewDeadline, &defaults.RenewDeadline}, {&s.RetryPeriod, &defaults.RetryPeriod},
	} {
		if *value.is == 0 {
			*value.is = *value.byDefault
		}
	}
	return d
}

// Validate checks d. prefix is put before the names of fields. The error is a
// *FieldError or nil.
func (d Description) Validate(prefix string) error {
	if err := d.Settings.Validate(prefix); err != nil {
		return err
	}
	refuse := func(allowed string) error {
		return &FieldError{Field: prefix + FieldIdentity, Value: d.Identity, Allowed: allowed}
	}
	name, uid, parted := cutIdentity(d.Identity)
	switch {
	case d.Namespace != "" && (len(d.Namespace) > maxNamespaceLength || !label.MatchString(d.Namespace)):
		return &FieldError{Field: prefix + FieldNamespace, Value: d.Namespace, Allowed: "use at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"}
	case d.Identity == "":
		return refuse("it names this candidate in the lock and must not be empty")
	case !utf8.ValidString(d.Identity):
		return refuse("it is text in UTF-8")
	case len(d.Identity) > maxIdentityLength:
		return refuse("it has at most 512 characters")
	case strings.ContainsFunc(d.Identity, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return refuse("it has no spaces and no control characters")
	case parted && (name == "" || uid == ""):
		return refuse("it is a name, an underscore and a UID, such as $POD_NAME_$POD_UID: neither may be empty")
	case !parted && d.Settings.Mode == ModeLeaderForLife:
		return refuse("in leader-for-life it is $POD_NAME_$POD_UID, because that Pod will own the lock")
	}
	return nil
}

// Identity is the holder identity of a Pod: its name and its UID, because a
// recreated Pod of the same name is another candidate. Both are needed: without
// one of them different candidates would have one identity, and New refuses it.
func Identity(podName, podUID string) string { return podName + "_" + podUID }

// NameOf returns the name in an identity: what stands before the last
// underscore. Pod names have none.
func NameOf(identity string) string {
	if name, _, _ := cutIdentity(identity); name != "" {
		return name
	}
	return identity
}

// UIDOf returns the UID in an identity, empty if it has none.
func UIDOf(identity string) string {
	_, uid, _ := cutIdentity(identity)
	return uid
}

// cutIdentity parts an identity at the last underscore.
func cutIdentity(identity string) (name, uid string, parted bool) {
	i := strings.LastIndexByte(identity, '_')
	if i < 0 {
		return identity, "", false
	}
	return identity[:i], identity[i+1:], true
}
