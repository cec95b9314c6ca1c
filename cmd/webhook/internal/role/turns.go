package role

import "github.com/elector-io/elector/cmd/webhook/internal/locks"

// turns is a queue in which namespaces take turns: however many locks of another
// one are due, a lock waits for one look at each namespace, and for those of its
// own that came before it. It implements workqueue.Queue, which calls one method
// at a time.
type turns struct {
	// waiting are the locks that are due, of each namespace that has some.
	waiting map[string][]locks.Lock
	// next are the namespaces with locks, in the order of their turns.
	next []string
	len  int
}

func newTurns() *turns { return &turns{waiting: map[string][]locks.Lock{}} }

// Touch does nothing: a lock that is due once more is due.
func (t *turns) Touch(locks.Lock) {}

// Push adds a lock behind those of its namespace.
func (t *turns) Push(l locks.Lock) {
	if len(t.waiting[l.Namespace]) == 0 {
		t.next = append(t.next, l.Namespace)
	}
	t.waiting[l.Namespace] = append(t.waiting[l.Namespace], l)
	t.len++
}

// Len is the number of locks.
func (t *turns) Len() int { return t.len }

// Pop takes the first lock of the namespace whose turn it is. There must be one.
func (t *turns) Pop() locks.Lock {
	namespace := t.next[0]
	t.next = t.next[1:]
	first, rest := t.waiting[namespace][0], t.waiting[namespace][1:]
	t.len--
	if len(rest) == 0 {
		delete(t.waiting, namespace)
		return first
	}
	t.waiting[namespace] = rest
	t.next = append(t.next, namespace)
	return first
}
