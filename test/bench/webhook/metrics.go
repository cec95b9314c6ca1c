package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// histogram reads one of the API server's metrics: how many were observed with the label, and their sum.
func (l *lab) histogram(ctx context.Context, name, label, value string) (count int, sum time.Duration, err error) {
	text, err := l.client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("reading the API server's metrics: %w", err)
	}
	return parseHistogram(bytes.NewReader(text), name, label, value)
}

func parseHistogram(text io.Reader, name, label, value string) (count int, sum time.Duration, err error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return 0, 0, fmt.Errorf("reading the API server's metrics: %w", err)
	}
	family := families[name]
	if family == nil {
		return 0, 0, fmt.Errorf("the API server has no metric %s", name)
	}
	for _, m := range family.Metric {
		if hasLabel(m, label, value) {
			count += int(m.Histogram.GetSampleCount())
			sum += time.Duration(m.Histogram.GetSampleSum() * float64(time.Second))
		}
	}
	return count, sum, nil
}

func hasLabel(m *dto.Metric, name, value string) bool {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue() == value
		}
	}
	return false
}
