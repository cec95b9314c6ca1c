package cert

import (
	"crypto/tls"

	"github.com/prometheus/client_golang/prometheus"
)

// Expiry is a metric: when the certificate that get returns ends. It is asked at
// every scrape, so it is right also when renewing stopped working. While there is
// no certificate the metric is 0, which is long past: an alert on it holds.
func Expiry(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "elector_webhook_certificate_expiry_timestamp_seconds",
		Help: "When the serving certificate ends, in seconds since 1970; 0 while there is none.",
	}, func() float64 {
		leaf, err := get(nil)
		if err != nil || leaf.Leaf == nil {
			return 0
		}
		return float64(leaf.Leaf.NotAfter.Unix())
	})
}
