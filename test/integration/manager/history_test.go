//go:build integration

package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/kube"
	"github.com/elector-io/elector/test/embedded"
)

// The workload's Events tell who led, one after the other, and why the one before does no more; so do the pods'.
func TestHistory(t *testing.T) {
	modes(t, func(t *testing.T, mode elector.Mode) {
		s := newScene(t, mode)
		s.deploy(2, s.spec(sleeper))
		leader := s.awaitLabels("", 2)
		story := []string{": nobody led before, as far as is known"}
		s.awaitStory(story)
		type incident struct {
			what func()
			says string
		}
		happens := []incident{
			{func() { s.resign(leader) }, ", which released the lock"},
			{func() { s.deletePod(leader, metav1.DeleteOptions{}) }, ", which was deleted"},
			{func() { s.ask("kubectl: alice") }, ` on request: "kubectl: alice"`},
			{func() { s.patch(`{"spec":{"template":{"metadata":{"annotations":{"rollout":"1"}}}}}`) }, ", which was deleted in a rollout"},
		}
		if mode == elector.ModeLeaderForLife { // else it releases the lock before its pod has ended
			happens = append(happens, incident{func() { s.control(embedded.Evict, leader) }, ", which has ended with phase Failed"})
		}
		for _, h := range happens {
			h.what()
			next := s.awaitLabels(leader.UID, 2)
			story = append(story, next.Name+" became leader of "+s.lock()+" after "+leader.Name+h.says)
			s.awaitStory(story)
			s.awaitEvent(next, "BecameLeader")
			leader = next
		}
	})
}

// A manager that comes later tells nothing again. This test is not parallel: it takes the manager away from others.
func TestHistoryManagerChanges(t *testing.T) {
	s := newScene(t, elector.ModeLease)
	s.deploy(2, s.spec(sleeper))
	leader := s.awaitLabels("", 2)
	story := []string{": nobody led before, as far as is known"}
	s.awaitStory(story)
	s.deleteManager()
	s.awaitManagers()
	s.barrier() // the next one works
	s.resign(leader)
	s.awaitLabels(leader.UID, 2)
	s.awaitStory(append(story, ", which released the lock"))
}

// lock is what the lock is called in Events.
func (s *scene) lock() string {
	if s.mode == elector.ModeLeaderForLife {
		return "ConfigMap " + s.ns + "/" + lockName
	}
	return "Lease " + s.ns + "/" + lockName
}

// awaitStory waits until these are the ends of what the Deployment's Events say, and there are no others.
func (s *scene) awaitStory(want []string) {
	s.t.Helper()
	s.poll("the history", func(ctx context.Context) error {
		list, err := cluster.Client().EventsV1().Events(s.ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		told := slices.DeleteFunc(list.Items, func(e eventsv1.Event) bool { return e.Reason != "BecameLeader" || e.Regarding.Kind != "Deployment" })
		slices.SortFunc(told, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
		var notes []string
		for _, e := range told {
			notes = append(notes, e.Note)
		}
		if !slices.EqualFunc(notes, want, strings.HasSuffix) {
			return fmt.Errorf("it is %q, want %q", notes, want)
		}
		return nil
	})
}

// ask asks the leader for a handover, as a person does, once its token is known.
func (s *scene) ask(why string) {
	s.t.Helper()
	s.request(elector.Handover{Why: why})
}

// request asks the leader for a handover, and names in the same write who goes first if the request does: with leaders for life it has no
// effect that it does.
func (s *scene) request(wish elector.Handover) {
	s.t.Helper()
	resource, read := cluster.Client().CoordinationV1().RESTClient(), "leases"
	if s.mode == elector.ModeLeaderForLife {
		resource, read = cluster.Client().CoreV1().RESTClient(), "configmaps"
	}
	s.poll("the handover to be asked for", func(ctx context.Context) error {
		text, err := resource.Get().Namespace(s.ns).Resource(read).Name(lockName).DoRaw(ctx)
		if err != nil {
			return err
		}
		var lock metav1.PartialObjectMetadata
		var claim struct{ Token uint64 }
		if err := errors.Join(json.Unmarshal(text, &lock), json.Unmarshal([]byte(lock.Annotations[kube.ClaimAnnotation]), &claim)); err != nil || claim.Token == 0 {
			return fmt.Errorf("there is no token yet: %w", err)
		}
		wish.Token = claim.Token
		annotations := map[string]string{elector.HandoverAnnotation: wish.String()}
		if wish.To != "" {
			annotations[elector.NextAnnotation] = wish.To
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
		if err != nil {
			return err
		}
		return resource.Patch(types.MergePatchType).Namespace(s.ns).Resource(read).Name(lockName).Body(patch).Do(ctx).Error()
	})
}
