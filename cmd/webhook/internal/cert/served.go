package cert

import (
	"crypto/tls"
	"errors"
	"sync/atomic"
	"time"
)

// firstCertificateWait bounds how long a connection waits for the first
// certificate. API servers wait ten seconds for a TLS handshake.
const firstCertificateWait = 5 * time.Second

var errNoCertificate = errors.New("no serving certificate yet")

// served is the certificate that is served. A process that was killed and starts
// again gets connections before it has one, because Services follow with a
// delay: they wait, which costs less than the admission that a refusal fails.
type served struct {
	leaf  atomic.Pointer[tls.Certificate]
	first chan struct{} // closed when there is a certificate
}

func newServed() served { return served{first: make(chan struct{})} }

// store is for one goroutine.
func (s *served) store(leaf *tls.Certificate) {
	if s.leaf.Swap(leaf) == nil {
		close(s.first)
	}
}

// GetCertificate is for tls.Config. It waits for the first certificate, but not
// forever, and not at all without a hello.
func (s *served) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if leaf := s.leaf.Load(); leaf != nil {
		return leaf, nil
	}
	if hello == nil {
		return nil, errNoCertificate
	}
	timeout := time.NewTimer(firstCertificateWait)
	defer timeout.Stop()
	select {
	case <-s.first:
		return s.leaf.Load(), nil
	case <-timeout.C:
		return nil, errNoCertificate
	}
}
