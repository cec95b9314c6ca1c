package cert

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// filesInterval is how often Files looks: the kubelet takes up to a minute to
// bring a changed Secret to the volume, so two seconds add nothing to notice, and
// reading two small files costs nothing. Unlike a file notification it works on
// every file system and through the kubelet's symbolic links.
const filesInterval = 2 * time.Second

// Files serves the certificate in the directory's tls.crt and tls.key and reads
// it anew when it changes. Files that do not fit together, or are not there, are
// reported and waited for; the last good certificate is served meanwhile. It is
// a manager.Runnable that every replica runs.
type Files struct {
	dir  string
	last [2][]byte
	served
}

// NewFiles does not look into the directory yet.
func NewFiles(dir string) *Files { return &Files{dir: dir, served: newServed()} }

// NeedLeaderElection tells the manager that every replica runs this.
func (*Files) NeedLeaderElection() bool { return false }

// Start follows the files until ctx ends.
func (f *Files) Start(ctx context.Context) error {
	log := klog.FromContext(ctx).WithName("cert")
	tick := time.NewTicker(filesInterval)
	defer tick.Stop()
	said := ""
	for {
		changed, err := f.load()
		switch {
		case err != nil && err.Error() != said: // once, not every two seconds
			log.Error(err, "cannot read the serving certificate", "directory", f.dir)
			said = err.Error()
		case changed:
			log.Info("serving a new certificate", "directory", f.dir, "until", f.leaf.Load().Leaf.NotAfter)
			said = ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// load reads the files and serves what they hold if it is new and good.
func (f *Files) load() (changed bool, err error) {
	var now [2][]byte
	for i, name := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if now[i], err = os.ReadFile(filepath.Join(f.dir, name)); err != nil {
			return false, err
		}
	}
	if f.leaf.Load() != nil && bytes.Equal(now[0], f.last[0]) && bytes.Equal(now[1], f.last[1]) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(now[0], now[1])
	if err != nil {
		return false, fmt.Errorf("%s and %s: %w", corev1.TLSCertKey, corev1.TLSPrivateKeyKey, err)
	}
	f.last = now
	f.store(&pair)
	return true, nil
}
