package inject

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// gateDir is where the wrapper is mounted in the containers behind the gate.
	gateDir = "/elector"
	wrapper = gateDir + "/gate"
)

// runsWrapper reports whether the wrapper is somewhere in what the container runs:
// mutators that came after us may have put a program of theirs before it.
func runsWrapper(c *corev1.Container) bool {
	return slices.Contains(c.Command, wrapper) || slices.Contains(c.Args, wrapper)
}

// imageWords are what of a container's whole command comes from its image: all but the
// args of the pod. It is not ok if it does not end with these.
func imageWords(words, args []string) ([]string, bool) {
	n := len(words) - len(args)
	if n < 1 || !slices.Equal(words[n:], args) {
		return nil, false
	}
	return words[:n], true
}

// literally keeps the kubelet from expanding $(VAR): it does so in the command of a pod,
// not in that of an image.
func literally(words []string) []string {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = strings.ReplaceAll(w, "$", "$$")
	}
	return all
}

// afterWrapper returns what the wrapper is to do, run or probe, nil for nothing. It is
// not ok if the command does not begin with the wrapper.
func afterWrapper(command []string, do string) ([]string, bool) {
	if len(command) < 2 || command[0] != wrapper || command[1] != do {
		return nil, false
	}
	i := slices.Index(command, "--")
	if i < 0 {
		return nil, false
	}
	return append([]string(nil), command[i+1:]...), true
}
