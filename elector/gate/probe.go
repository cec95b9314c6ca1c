package gate

import (
	"strconv"
	"strings"
	"time"
)

// A gate that is the first process of its container says by its name, which every
// process there can read, whether it is open, and since when: there may be no other
// place that it can write to. The kernel keeps 15 bytes of a name.
const (
	signClosed = "gate: closed"
	signPrefix = "gate:"
	signBase   = 36
)

// signOpen is the name of a gate that opened at that time.
func signOpen(at time.Duration) string {
	return signPrefix + strconv.FormatInt(at.Milliseconds(), signBase)
}

// readSign tells whether a process of that name is a closed gate, and since when one
// that is open is; 0 if it is none.
func readSign(name string) (isClosed bool, opened time.Duration) {
	name = strings.TrimSuffix(name, "\n")
	if name == signClosed {
		return true, 0
	}
	text, ok := strings.CutPrefix(name, signPrefix)
	ms, err := strconv.ParseInt(text, signBase, 64)
	if !ok || err != nil {
		return false, 0
	}
	return false, moment(ms)
}
