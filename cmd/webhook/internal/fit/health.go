package fit

import (
	"time"

	"github.com/elector-io/elector/cmd/internal/fitness"
	"github.com/elector-io/elector/cmd/webhook/internal/candidates"
	"github.com/elector-io/elector/inject"
)

// health is since when a pod has been how it is, as far as was seen.
type health struct {
	// toldRefused is that it was told what its annotations have that is refused.
	toldRefused bool
	last        fitness.Fitness
	// fit and unfit are since when it has been so without a break; the other one is
	// zero.
	fit, unfit time.Time
	// lapsed tells that it was fit, and then was not.
	lapsed bool
	// broken is since when it has been broken but for breaks that were too short to
	// count, and mended since when it is in such a break; zero if it is not.
	broken, mended time.Time
	// silent is since when its sidecar has been down, zero if it is up, and heard since
	// when it has been up again.
	silent, heard time.Time
}

// see notes how the pod is now.
func (h *health) see(p candidates.Pod, now time.Time) {
	is := p.Fitness
	// It turned and turned back, and nobody looked in between.
	turned := is.Turn != h.last.Turn && is.Turn != 0 && h.last.Turn != 0
	h.last = is
	h.lapsed = h.lapsed || !h.fit.IsZero() && (is.State != fitness.Fit || turned)
	switch {
	case is.Silent && h.silent.IsZero():
		h.silent, h.heard = now, time.Time{}
	case !is.Silent && !h.silent.IsZero():
		h.silent, h.heard = time.Time{}, now
	}
	switch {
	case is.State != fitness.Fit:
		h.fit = time.Time{}
		if h.unfit.IsZero() || turned {
			h.unfit = now
		}
	case h.fit.IsZero() || turned:
		h.fit, h.unfit = now, time.Time{}
	}
	if !h.mended.IsZero() && now.Sub(h.mended) >= p.Failover.For {
		h.broken, h.mended = time.Time{}, time.Time{}
	}
	switch {
	case is.State == fitness.Broken && h.broken.IsZero():
		h.broken = now
	case is.State == fitness.Broken:
		h.mended = time.Time{}
	case !h.broken.IsZero() && h.mended.IsZero():
		h.mended = now
	}
}

// restarting is for how long the pod's sidecar may yet be one that is being started
// again.
func (h *health) restarting(now time.Time) time.Duration {
	switch {
	case !h.silent.IsZero():
		return max(0, restartPause-now.Sub(h.silent))
	case !h.heard.IsZero():
		return max(0, resumePause-now.Sub(h.heard))
	}
	return 0
}

// sick returns since when the pod is in a state that leadership is to leave, if it
// is in one.
func (h *health) sick(p candidates.Pod) (since time.Time, sick bool) {
	switch when := p.Failover.When; {
	case when == inject.HandoverNever:
		return time.Time{}, false
	case p.Fitness.State == fitness.Broken && when == inject.HandoverUnready && h.unfit.Before(h.broken):
		return h.unfit, true
	case p.Fitness.State == fitness.Broken:
		return h.broken, true
	case p.Fitness.State == fitness.Unready && when == inject.HandoverUnready:
		return h.unfit, true
	}
	return time.Time{}, false
}
