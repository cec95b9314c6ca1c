package serviceproxy

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	discovery "k8s.io/api/discovery/v1"

	"github.com/elector-io/elector/test/cluster/internal/network"
)

func TestBackends(t *testing.T) {
	r, err := network.Claim()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	pod, err := r.AllocatePod()
	if err != nil {
		t.Fatal(err)
	}
	reported := r.Reported(pod).String()
	yes, no := true, false
	slice := func(port string, number int32, conditions discovery.EndpointConditions) *discovery.EndpointSlice {
		return &discovery.EndpointSlice{Ports: []discovery.EndpointPort{{Name: &port, Port: &number}},
			Endpoints: []discovery.Endpoint{{Addresses: []string{reported}, Conditions: conditions}}}
	}
	ready := discovery.EndpointConditions{Ready: &yes, Serving: &yes}
	leaving := discovery.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
	gone := discovery.EndpointConditions{Ready: &no, Serving: &no}
	at := func(port int) string { return fmt.Sprintf("%s:%d", pod, port) }
	tests := map[string]struct {
		reason string
		slices []*discovery.EndpointSlice
		port   string
		want   []string
	}{
		"Ready":       {"a ready endpoint, at its wire address", []*discovery.EndpointSlice{slice("http", 80, ready)}, "http", []string{at(80)}},
		"OtherPort":   {"another port of the Service", []*discovery.EndpointSlice{slice("http", 80, ready)}, "metrics", nil},
		"NotReady":    {"an endpoint that does not serve", []*discovery.EndpointSlice{slice("http", 80, gone)}, "http", nil},
		"Terminating": {"when nothing else is left, what terminates still serves", []*discovery.EndpointSlice{slice("http", 80, leaving)}, "http", []string{at(80)}},
		"ReadyFirst":  {"what terminates gets nothing while another is ready", []*discovery.EndpointSlice{slice("http", 80, leaving), slice("http", 81, ready)}, "http", []string{at(81)}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, backends(tc.slices, tc.port, r)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}
