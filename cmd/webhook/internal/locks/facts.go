package locks

import (
	"fmt"
	"hash/fnv"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
)

// Facts are what a lock object says about a claim and who is to follow.
type Facts struct {
	// Holder is the identity of who holds the lock, empty if nobody does.
	Holder string
	// Token is the fencing token of its claim; 0 if it did not note it (yet).
	Token uint64
	// Asked tells that somebody asked for the end of that claim, and not that its
	// holder should follow itself: that is declined, and stays on the lock.
	Asked bool
	// Next is elector.NextAnnotation. Of a value that is much too long it is something
	// else, which no other value has.
	Next string
}

// The annotations in which Trim keeps Facts and what was Said. No object of an API server has such
// names, so what was trimmed before is known, and nobody can forge it.
const keptToken, keptAsked, keptNext, keptBy, keptWhy = "/token", "/asked", "/next", "/released-by", "/released-why"

// FactsOf returns what a lock object says that went through Trim.
func FactsOf(trimmed client.Object) Facts {
	kept := trimmed.GetAnnotations()
	f := Facts{Holder: kube.HolderOf(trimmed), Next: kept[keptNext]}
	_, f.Asked = kept[keptAsked]
	f.Token, _ = strconv.ParseUint(kept[keptToken], 10, 64) // absent is 0
	return f
}

// keep returns how a trimmed object has all that, but for the holder. It may have
// been trimmed before.
func keep(obj metav1.Object) map[string]string {
	said := obj.GetAnnotations()
	kept := map[string]string{}
	for _, key := range []string{keptToken, keptAsked, keptNext, keptBy, keptWhy} {
		if value, ok := said[key]; ok {
			kept[key] = value
		}
	}
	token := kube.TokenOf(obj)
	if token != 0 {
		kept[keptToken] = strconv.FormatUint(token, 10)
	}
	keepWish(obj, token, kept)
	keepRelease(obj, kept)
	if next := said[elector.NextAnnotation]; next != "" {
		kept[keptNext] = short(next)
	}
	if len(kept) == 0 {
		return nil
	}
	return kept
}

// keepWish adds that somebody asks for the end of the claim that has the token.
func keepWish(obj metav1.Object, token uint64, kept map[string]string) {
	value, asked := obj.GetAnnotations()[elector.HandoverAnnotation]
	if !asked {
		return
	}
	wish, err := elector.ParseHandover(value)
	if err != nil || wish.Token != token || wish.To == elector.NameOf(kube.HolderOf(obj)) {
		return
	}
	kept[keptAsked] = ""
	if !isLease(obj) { // a Lease says why when it is released
		kept[keptAsked] = readable(wish.Why)
	}
}

// maxKept is what Trim keeps of a value, in bytes: sixteen names of pods have less
// unless they are long, and then their sum is kept.
const maxKept = 384

// short is the value, or what tells it from others.
func short(value string) string {
	if len(value) <= maxKept {
		return value
	}
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(value))
	return fmt.Sprintf("…%x", sum.Sum64())
}

// IsNext reports whether a lock's elector.NextAnnotation has the value.
func (f Facts) IsNext(value string) bool { return f.Next == short(value) }
