package sim

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// object is an API object as JSON has it.
type object map[string]any

func (o object) metadata() map[string]any {
	m, _ := o["metadata"].(map[string]any)
	if m == nil {
		m = map[string]any{}
		o["metadata"] = m
	}
	return m
}

func (o object) name() string { s, _ := o.metadata()["name"].(string); return s }
func (o object) uid() string  { s, _ := o.metadata()["uid"].(string); return s }

func (o object) version() uint64 {
	s, _ := o.metadata()["resourceVersion"].(string)
	v, _ := strconv.ParseUint(s, 10, 64)
	return v
}

func (o object) clone() object {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err) // it came from JSON
	}
	var c object
	if err := json.Unmarshal(data, &c); err != nil {
		panic(err)
	}
	return c
}

// change is one write in the history that watches replay.
type change struct {
	version uint64
	kind    string // ADDED, MODIFIED, DELETED
	key     string
	object  object // as written; for DELETED the last state with the deletion's version
	data    []byte // the object as clients get it
	at      time.Time
}

// apiError is a metav1.Status to be.
type apiError struct {
	code    int
	reason  string
	message string
	after   int // seconds in Retry-After; 0 for none
}

func (e *apiError) Error() string { return e.message }

// api is the part of the API server that an election meets: objects with
// resourceVersions from one counter, optimistic concurrency, preconditions,
// validation, a history that is compacted, backups, and the garbage collector's
// view of owners.
type api struct {
	version   uint64
	objects   map[string]object // by resource/name
	history   []change          // what watches can be told
	log       []change          // every write that no restore took back
	compacted uint64
	used      map[uint64]bool // versions of writes, also of those that a restore took back
	changed   chan struct{}   // closed and replaced at every write
	pods      map[string]bool // UIDs of living pods
	nextUID   int
	onWrite   func(c change)

	strip bool // a policy takes elector's annotations off whatever is written
	busy  bool // others write in between, so that versions jump
	// lags is how far behind the watch cache of each API server is; none without.
	lags []time.Duration
}

func newAPI() *api {
	return &api{version: 1000, objects: map[string]object{}, used: map[uint64]bool{}, changed: make(chan struct{}), pods: map[string]bool{}, onWrite: func(change) {}}
}

func (a *api) commit(kind, key string, o object) object {
	a.version++
	if a.busy {
		a.version += a.version * 2654435761 % 97
	}
	for a.used[a.version] {
		// After a restore the numbers come again, but hardly ever one that this very
		// object has had. Nobody could tell the two apart by a precondition.
		a.version++
	}
	a.used[a.version] = true
	o.metadata()["resourceVersion"] = strconv.FormatUint(a.version, 10)
	resource, _, _ := strings.Cut(key, "/")
	c := change{a.version, kind, key, o, encode(resource, o), time.Now()}
	a.history = append(a.history, c)
	a.log = append(a.log, c)
	if kind == "DELETED" {
		delete(a.objects, key)
	} else {
		a.objects[key] = o
	}
	a.wake()
	a.onWrite(c)
	return o
}

// madeBy tells whether a lock of that version was made for a holder, and named no
// other since. The token of a claim does not tell: after a restore it may be higher
// than all versions.
func (a *api) madeBy(key, holder string, version uint64) bool {
	for _, c := range slices.Backward(a.log) {
		switch {
		case c.key != key || c.version > version:
		case c.kind == "DELETED", c.object.holder() != holder:
			return false
		case c.kind == "ADDED":
			return true
		}
	}
	return false
}

// taken returns the write by which the holder that the lock has in that version took
// it, and the one that had just freed it; neither if that is not how it went.
func (a *api) taken(key string, version uint64) (by, freed *change) {
	for i, c := range slices.Backward(a.log) {
		switch {
		case c.key != key || c.version > version:
		case freed != nil && c.object.holder() != "":
			return by, freed
		case freed != nil:
			return nil, nil // written to while it was free
		case by != nil && c.kind == "DELETED":
			return by, &a.log[i]
		case by == nil || c.object.holder() == by.object.holder():
			by = &a.log[i]
		case c.object.holder() != "":
			return nil, nil // taken over
		default:
			freed = &a.log[i]
		}
	}
	return nil, nil
}

// wake has every watch look for what is new.
func (a *api) wake() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// othersWrite moves the counter as writes of other objects do.
func (a *api) othersWrite(n uint64) {
	a.version += n
	a.wake()
}

// restore puts the datastore back to what it was at version.
func (a *api) restore(version uint64) {
	after := func(c change) bool { return c.version > version }
	a.log = slices.DeleteFunc(a.log, after)
	a.history = slices.DeleteFunc(a.history, after)
	a.objects = map[string]object{}
	for _, c := range a.log {
		if c.kind == "DELETED" {
			delete(a.objects, c.key)
		} else {
			a.objects[c.key] = c.object.clone()
		}
	}
	a.version = version
	a.compacted = min(a.compacted, version)
	a.wake()
}

// received is what a policy and the validation leave of a written object.
func (a *api) received(resource string, o object) (object, error) {
	o = o.clone()
	annotations, _ := o.metadata()["annotations"].(map[string]any)
	size := 0
	for k, v := range annotations {
		s, _ := v.(string)
		size += len(k) + len(s)
		if a.strip && strings.HasPrefix(k, "elector.io/") {
			delete(annotations, k)
		}
	}
	if size > 256<<10 {
		return nil, &apiError{code: 422, reason: "Invalid", message: "metadata.annotations: Too long: may not be more than 262144 bytes"}
	}
	if resource != "leases" {
		return o, nil
	}
	spec, _ := o["spec"].(map[string]any)
	for i, field := range []string{"leaseTransitions", "leaseDurationSeconds"} {
		lowest := float64(i)
		v, ok := spec[field].(float64)
		switch {
		case !ok:
		case v != float64(int32(v)):
			return nil, &apiError{code: 400, reason: "BadRequest", message: "spec." + field + " overflows int32"}
		case v < lowest:
			return nil, &apiError{code: 422, reason: "Invalid", message: fmt.Sprintf("spec.%s: Invalid value: %v: must be at least %v", field, v, lowest)}
		}
	}
	return o, nil
}

func (a *api) create(resource string, o object) (object, error) {
	key := resource + "/" + o.name()
	if a.objects[key] != nil {
		return nil, &apiError{code: 409, reason: "AlreadyExists", message: key + " already exists"}
	}
	o, err := a.received(resource, o)
	if err != nil {
		return nil, err
	}
	a.nextUID++
	o.metadata()["uid"] = fmt.Sprintf("object-%d", a.nextUID)
	return a.commit("ADDED", key, o), nil
}

// update replaces an object, if the version and the UID in o, where it has them,
// are the object's.
func (a *api) update(resource, name string, o object) (object, error) {
	key := resource + "/" + name
	old := a.objects[key]
	if old == nil {
		return nil, &apiError{code: 404, reason: "NotFound", message: key + " not found"}
	}
	if v := o.version(); v != 0 && v != old.version() {
		return nil, &apiError{code: 409, reason: "Conflict", message: fmt.Sprintf("%s is at %d, not %d", key, old.version(), v)}
	}
	if uid := o.uid(); uid != "" && uid != old.uid() {
		return nil, &apiError{code: 409, reason: "Conflict", message: fmt.Sprintf("the UID in the precondition is %s, that of %s is %s", uid, key, old.uid())}
	}
	o, err := a.received(resource, o)
	if err != nil {
		return nil, err
	}
	o.metadata()["uid"] = old.uid()
	o.metadata()["resourceVersion"] = old.metadata()["resourceVersion"]
	if bytes.Equal(encode(resource, o), encode(resource, old)) {
		return old, nil // a write that changes nothing is none
	}
	if f, _ := o.metadata()["finalizers"].([]any); len(f) == 0 && old.metadata()["deletionTimestamp"] != nil {
		return a.commit("DELETED", key, o), nil
	}
	return a.commit("MODIFIED", key, o), nil
}

// patch applies a JSON merge patch (RFC 7386); a version and a UID in it are
// preconditions, as in an update.
func (a *api) patch(resource, name string, p object) (object, error) {
	old := a.objects[resource+"/"+name]
	if old == nil {
		return nil, &apiError{code: 404, reason: "NotFound", message: resource + "/" + name + " not found"}
	}
	return a.update(resource, name, merge(map[string]any(old.clone()), map[string]any(p)))
}

// merge changes to as patch says and returns it.
func merge(to, patch map[string]any) map[string]any {
	if to == nil {
		to = map[string]any{}
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(to, k)
		case map[string]any:
			into, _ := to[k].(map[string]any)
			to[k] = merge(into, v)
		default:
			to[k] = v
		}
	}
	return to
}

func (a *api) remove(resource, name, uid, version string) error {
	key := resource + "/" + name
	old := a.objects[key]
	if old == nil {
		return &apiError{code: 404, reason: "NotFound", message: key + " not found"}
	}
	if uid != "" && uid != old.uid() || version != "" && version != strconv.FormatUint(old.version(), 10) {
		return &apiError{code: 409, reason: "Conflict", message: "precondition failed for " + key}
	}
	if finalizers, _ := old.metadata()["finalizers"].([]any); len(finalizers) > 0 { // it stays until they are gone
		if old.metadata()["deletionTimestamp"] == nil {
			o := old.clone()
			o.metadata()["deletionTimestamp"] = "2026-11-21T12:00:00Z"
			a.commit("MODIFIED", key, o)
		}
		return nil
	}
	a.commit("DELETED", key, old.clone())
	return nil
}

// list returns the object of a name, as it is now or, for those that ask for any
// version, as the watch cache of a server has it.
func (a *api) list(resource, name string, lag time.Duration) (items []object, version uint64) {
	if lag == 0 {
		if o := a.objects[resource+"/"+name]; o != nil {
			items = append(items, o.clone())
		}
		return items, a.version
	}
	for _, c := range a.log {
		if time.Since(c.at) < lag {
			break
		}
		version = c.version
		if c.key != resource+"/"+name {
			continue
		}
		items = nil
		if c.kind != "DELETED" {
			items = []object{c.object.clone()}
		}
	}
	return items, max(version, 1000)
}

// since returns the changes to one object after version that a server lagging by
// so much knows of, or 410; and when it will know of the next, if there is one.
func (a *api) since(resource, name string, version uint64, lag time.Duration) (found []change, next time.Time, err error) {
	if version < a.compacted {
		return nil, time.Time{}, &apiError{code: 410, reason: "Expired", message: "too old resource version"}
	}
	key := resource + "/" + name
	i, _ := slices.BinarySearchFunc(a.history, version+1, func(c change, v uint64) int {
		return cmp.Compare(c.version, v)
	})
	for _, c := range a.history[i:] {
		if at := c.at.Add(lag); time.Now().Before(at) {
			return found, at, nil
		}
		if c.key == key {
			found = append(found, c)
		}
	}
	return found, time.Time{}, nil
}

// compact forgets the history up to now.
func (a *api) compact() {
	a.compacted = a.version
	a.history = nil
}

// collect deletes ConfigMaps all of whose owners are gone, as the garbage
// collector does.
func (a *api) collect() {
	for _, key := range a.keys() {
		o := a.objects[key]
		owners, _ := o.metadata()["ownerReferences"].([]any)
		if len(owners) == 0 {
			continue
		}
		alive := false
		for _, owner := range owners {
			uid, _ := owner.(map[string]any)["uid"].(string)
			alive = alive || a.pods[uid]
		}
		if !alive {
			a.commit("DELETED", key, o.clone())
		}
	}
}

func (a *api) keys() []string {
	keys := make([]string, 0, len(a.objects))
	for k := range a.objects {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// path is a parsed request path.
type path struct{ resource, name string }

func parsePath(p string) path {
	parts := strings.Split(p, "/")
	i := slices.Index(parts, "namespaces")
	if i < 0 || len(parts) < i+3 {
		return path{}
	}
	out := path{resource: parts[i+2]}
	if len(parts) > i+3 {
		out.name = parts[i+3]
	}
	return out
}

var kinds = map[string][2]string{
	"leases":     {"coordination.k8s.io/v1", "Lease"},
	"configmaps": {"v1", "ConfigMap"},
}

// encode gives o the type information a client expects.
func encode(resource string, o object) []byte {
	typed := maps.Clone(o)
	typed["apiVersion"], typed["kind"] = kinds[resource][0], kinds[resource][1]
	data, err := json.Marshal(typed)
	if err != nil {
		panic(err)
	}
	return data
}

func encodeList(resource string, items []object, version uint64) []byte {
	raw := make([]json.RawMessage, 0, len(items))
	for _, o := range items {
		raw = append(raw, encode(resource, o))
	}
	data, err := json.Marshal(map[string]any{
		"apiVersion": kinds[resource][0], "kind": kinds[resource][1] + "List",
		"metadata": map[string]any{"resourceVersion": strconv.FormatUint(version, 10)},
		"items":    raw,
	})
	if err != nil {
		panic(err)
	}
	return data
}

func encodeEvent(kind string, data []byte) []byte {
	return fmt.Appendf(nil, "{\"type\":%q,\"object\":%s}\n", kind, data)
}

func encodeStatus(e *apiError) []byte {
	data, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": e.code, "reason": e.reason, "message": e.message,
		"metadata": map[string]any{},
	})
	if err != nil {
		panic(err)
	}
	return data
}

// bookmark is an object that only says how far the watch is.
func bookmark(resource string, version uint64) []byte {
	return encode(resource, object{"metadata": map[string]any{"resourceVersion": strconv.FormatUint(version, 10)}})
}

const bookmarkPeriod = time.Minute
