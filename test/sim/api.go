package sim

import (
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
}

// apiError is a metav1.Status to be.
type apiError struct {
	code    int
	reason  string
	message string
}

func (e *apiError) Error() string { return e.message }

// api is the part of the API server that an election meets: objects with
// resourceVersions from one counter, optimistic concurrency, preconditions, a
// history that is compacted, and the garbage collector's view of owners.
type api struct {
	version   uint64
	objects   map[string]object // by resource/name
	history   []change
	compacted uint64
	changed   chan struct{}   // closed and replaced at every write
	pods      map[string]bool // UIDs of living pods
	nextUID   int
	onWrite   func(c change)
}

func newAPI() *api {
	return &api{version: 1000, objects: map[string]object{}, changed: make(chan struct{}), pods: map[string]bool{}, onWrite: func(change) {}}
}

func (a *api) commit(kind, key string, o object) object {
	a.version++
	o.metadata()["resourceVersion"] = strconv.FormatUint(a.version, 10)
	c := change{a.version, kind, key, o.clone()}
	a.history = append(a.history, c)
	if kind == "DELETED" {
		delete(a.objects, key)
	} else {
		a.objects[key] = o
	}
	close(a.changed)
	a.changed = make(chan struct{})
	a.onWrite(c)
	return o
}

func (a *api) create(resource string, o object) (object, error) {
	key := resource + "/" + o.name()
	if a.objects[key] != nil {
		return nil, &apiError{409, "AlreadyExists", key + " already exists"}
	}
	a.nextUID++
	o = o.clone()
	o.metadata()["uid"] = fmt.Sprintf("object-%d", a.nextUID)
	return a.commit("ADDED", key, o), nil
}

func (a *api) update(resource, name string, o object) (object, error) {
	key := resource + "/" + name
	old := a.objects[key]
	if old == nil {
		return nil, &apiError{404, "NotFound", key + " not found"}
	}
	if v := o.version(); v != 0 && v != old.version() {
		return nil, &apiError{409, "Conflict", fmt.Sprintf("%s is at %d, not %d", key, old.version(), v)}
	}
	o = o.clone()
	o.metadata()["uid"] = old.uid()
	return a.commit("MODIFIED", key, o), nil
}

// patch merges annotations, as much of JSON merge patches as the locks use.
func (a *api) patch(resource, name string, patch object) (object, error) {
	key := resource + "/" + name
	old := a.objects[key]
	if old == nil {
		return nil, &apiError{404, "NotFound", key + " not found"}
	}
	if patch.uid() != old.uid() || patch.version() != old.version() {
		return nil, &apiError{409, "Conflict", "precondition failed for " + key}
	}
	o := old.clone()
	merged, _ := o.metadata()["annotations"].(map[string]any)
	if merged == nil {
		merged = map[string]any{}
	}
	added, _ := patch.metadata()["annotations"].(map[string]any)
	maps.Copy(merged, added)
	o.metadata()["annotations"] = merged
	return a.commit("MODIFIED", key, o), nil
}

func (a *api) remove(resource, name, uid, version string) error {
	key := resource + "/" + name
	old := a.objects[key]
	if old == nil {
		return &apiError{404, "NotFound", key + " not found"}
	}
	if uid != "" && uid != old.uid() || version != "" && version != strconv.FormatUint(old.version(), 10) {
		return &apiError{409, "Conflict", "precondition failed for " + key}
	}
	a.commit("DELETED", key, old.clone())
	return nil
}

func (a *api) list(resource, name string) (items []object, version uint64) {
	if o := a.objects[resource+"/"+name]; o != nil {
		items = append(items, o.clone())
	}
	return items, a.version
}

// since returns the changes to one object after version, or 410.
func (a *api) since(resource, name string, version uint64) ([]change, error) {
	if version < a.compacted {
		return nil, &apiError{410, "Expired", "too old resource version"}
	}
	key := resource + "/" + name
	i, _ := slices.BinarySearchFunc(a.history, version+1, func(c change, v uint64) int {
		return int(int64(c.version) - int64(v))
	})
	var found []change
	for _, c := range a.history[i:] {
		if c.key == key {
			found = append(found, c)
		}
	}
	return found, nil
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
	o = o.clone()
	o["apiVersion"], o["kind"] = kinds[resource][0], kinds[resource][1]
	data, err := json.Marshal(o)
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
