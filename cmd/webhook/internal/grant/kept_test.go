package grant

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/elector-io/elector/cmd/internal/rights"
	"github.com/elector-io/elector/elector"
)

// BenchmarkKept tells how much memory a RoleBinding takes in the cache, its part of
// the indexes included: the cache's own has one more.
func BenchmarkKept(b *testing.B) {
	index := toolscache.NewIndexer(toolscache.MetaNamespaceKeyFunc, toolscache.Indexers{toolscache.NamespaceIndex: toolscache.MetaNamespaceIndexFunc})
	before := heap()
	for i := range b.N {
		role := rights.Role(elector.ModeLease, fmt.Sprintf("shop-%d", i/10), "web")
		made := rights.Binding(role, fmt.Sprintf("web-%d", i%10))
		made.UID, made.ResourceVersion = types.UID(fmt.Sprintf("2f1c8f5e-5d0f-4a53-8f0c-%012d", i)), strconv.Itoa(100_000+i)
		data, err := made.Marshal()
		if err != nil {
			b.Fatal(err)
		}
		var read rbacv1.RoleBinding // as it comes from the API server: no part of it is shared
		if err := read.Unmarshal(data); err != nil {
			b.Fatal(err)
		}
		kept, err := Trim(&read)
		if err != nil {
			b.Fatal(err)
		}
		if err := index.Add(kept); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(heap()-before)/float64(b.N), "kept-B/op")
	runtime.KeepAlive(index)
}

// heap is what is in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
