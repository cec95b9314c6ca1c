package inject

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/gate"
)

const (
	// VolumeGate is the volume through which the sidecar gives the wrapper to the
	// containers behind the gate.
	VolumeGate = "elector-gate"
	// sidecarGateDir is where it is mounted in the sidecar, whose own program has the
	// path of gateDir.
	sidecarGateDir = "/var/run/elector-gate"
)

const defaultStopGrace = 2 * time.Second

// everyApp in elector.io/gate stands for all app containers but the proxies.
const everyApp = "true"

// proxies are what a mesh adds to every pod: behind a gate they would serve no standby.
var proxies = []string{"istio-proxy", "linkerd-proxy"}

func readGate(p *plan, value string) error {
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return refuse(keyGate, value, `use "true" for all app containers, or the names of those that have to run on the leader alone, separated by commas`)
		}
		p.gate = append(p.gate, name)
	}
	return nil
}

func readStopGrace(p *plan, value string) error {
	d, err := time.ParseDuration(value)
	if err != nil || d < minStopGrace || d > maxStopGrace || d%time.Millisecond != 0 {
		return refuse(keyStopGrace, value, "use a duration with its unit, from 500ms to 1h, such as 2s")
	}
	p.stopGrace = d
	return nil
}

func readCommand(p *plan, value string) error {
	err := json.Unmarshal([]byte(value), &p.commands)
	usable := err == nil && len(p.commands) > 0
	for _, words := range p.commands {
		usable = usable && len(words) > 0 && words[0] != "" && !strings.Contains(strings.Join(words, ""), "\x00")
	}
	if !usable {
		return refuse(keyCommand, value, `use a JSON object of containers and their commands, such as {"app":["/docker-entrypoint.sh","redis-server"]}`)
	}
	return nil
}

// hasWrapper reports whether the gate is the wrapper, not the kubelet.
func (p plan) hasWrapper() bool { return p.gate != nil && p.settings.Mode == elector.ModeLease }

// hasKubeletGate reports whether it is the kubelet.
func (p plan) hasKubeletGate() bool { return p.gate != nil && !p.hasWrapper() }

// checkGateTogether checks what the gate's annotations and the election's say
// together, and lets durations that nobody chose follow from the grace.
func checkGateTogether(p *plan, usual elector.Settings) error {
	for _, key := range []string{keyCommand, keyStopGrace} {
		switch value, given := p.given[Prefix+key]; {
		case given && p.gate == nil:
			return refuse(key, value, "it says how the gate runs the app, so add %s or remove it", Prefix+keyGate)
		case given && !p.hasWrapper():
			return refuse(key, value, "in %s the kubelet is the gate, and a leader is never stopped, remove it", elector.ModeLeaderForLife)
		}
	}
	if when := p.given[Prefix+keyHandoverWhen]; p.hasKubeletGate() && (when == string(HandoverBroken) || when == string(HandoverUnready)) {
		return refuse(keyHandoverWhen, when, "in %s a gate opens once, and its leader leads for as long as its pod lives, use %s", elector.ModeLeaderForLife, HandoverNever)
	}
	if !p.hasWrapper() {
		return nil
	}
	if within(p.statusDir, gateDir) || within(gateDir, p.statusDir) {
		return refuse(keyStatusDir, p.given[Prefix+keyStatusDir], "behind the gate %s is the wrapper's, choose another path", gateDir)
	}
	return makeRoom(p, usual)
}

// makeRoom lets the durations follow from the grace, or refuses those that were chosen.
func makeRoom(p *plan, usual elector.Settings) error {
	s := &p.settings
	lease, leaseGiven := p.given[Prefix+keyLeaseDuration]
	deadline, deadlineGiven := p.given[Prefix+keyRenewDeadline]
	if _, given := p.given[Prefix+keyRetryPeriod]; !given && !hasRoom(*s, p.stopGrace) {
		s.RetryPeriod = min(s.RetryPeriod, usual.RetryPeriod)
	}
	least := leastFor(p.stopGrace, s.RetryPeriod, usual)
	const fix = "with %s %s the least lease-duration, renew-deadline and retry-period are %s, %s and %s, so choose these or leave them out"
	switch {
	case hasRoom(*s, p.stopGrace):
		return nil
	case deadlineGiven:
		return refuse(keyRenewDeadline, deadline, fix, Prefix+keyStopGrace, p.stopGrace, least.LeaseDuration, least.RenewDeadline, least.RetryPeriod)
	case leaseGiven:
		return refuse(keyLeaseDuration, lease, fix, Prefix+keyStopGrace, p.stopGrace, least.LeaseDuration, least.RenewDeadline, least.RetryPeriod)
	}
	least.Lock, least.Mode = s.Lock, s.Mode
	*s = least
	return s.Validate(Prefix)
}

// chooseGated notes which app containers are behind the wrapper. Those of a pod that
// has its sidecar are what the sidecar was told: what mutators add since is not.
func chooseGated(p *plan, spec *corev1.PodSpec, injected bool) {
	if !p.hasWrapper() {
		return
	}
	if injected {
		sidecar := &spec.InitContainers[slices.IndexFunc(spec.InitContainers, isNamedElector)]
		before, _ := specOf(sidecar)
		p.gated = slices.Sorted(maps.Keys(before.Containers))
		p.leastClaim = leastClaim(durationsOf(sidecar, p.settings), p.stopGrace)
		return
	}
	p.gated, p.leastClaim = p.gatedByName(spec), leastClaim(p.settings, p.stopGrace)
}

// durationsOf are those of a sidecar, which another cluster may have chosen: its
// manifest came from there. What cannot be read is as in s.
func durationsOf(sidecar *corev1.Container, s elector.Settings) elector.Settings {
	has, err := s.Parse("", func(field string) (string, bool) {
		value := flagOf(field)(sidecar)
		return value, value != ""
	})
	if err != nil {
		return s
	}
	return has
}

// gatedByName are the app containers that elector.io/gate names.
func (p plan) gatedByName(spec *corev1.PodSpec) []string {
	var names []string
	for i := range spec.Containers {
		if name := spec.Containers[i].Name; slices.Contains(p.gate, name) || slices.Contains(p.gate, everyApp) && !slices.Contains(proxies, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (p plan) isGated(c *corev1.Container) bool { return slices.Contains(p.gated, c.Name) }

// behindSidecar reports whether an init container has to start after the sidecar.
func (p plan) behindSidecar(name string) bool {
	return slices.Contains(p.containers, name) || p.gate != nil && slices.Contains(p.gate, name)
}

// checkGate refuses what the gate cannot be before.
func checkGate(spec *corev1.PodSpec, p plan, injected bool) error {
	if p.gate == nil {
		return nil
	}
	value := p.given[Prefix+keyGate]
	for _, name := range p.gate {
		if name != everyApp && !slices.Contains(containersOf(spec), name) {
			return refuse(keyGate, value, `the pod has no container %q, use "true" or %s`, shorten(name), quotedList(containersOf(spec)))
		}
	}
	if !p.hasWrapper() {
		return checkKubeletGate(spec, p, value)
	}
	switch {
	case spec.HostPID:
		return refuse(keyGate, value, "the pod has hostPID, so ending all of the app's processes would end the node's, remove hostPID")
	case spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace:
		return refuse(keyGate, value, "the pod has shareProcessNamespace, so ending all of the app's processes would end the others', remove shareProcessNamespace")
	}
	for i := range spec.InitContainers {
		if name := spec.InitContainers[i].Name; slices.Contains(p.gate, name) {
			return refuse(keyGate, value, "%q is an init container, and these run in standbys, too, name app containers, or use %s %s", shorten(name), Prefix+keyMode, elector.ModeLeaderForLife)
		}
	}
	for i := range spec.Containers {
		if c := &spec.Containers[i]; p.isGated(c) {
			if err := checkGated(c, p, spec.Volumes, value, injected); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.commands)) {
		if !slices.Contains(p.gated, name) {
			return refuse(keyCommand, p.given[Prefix+keyCommand], "the container %q is not behind the gate, use %s", shorten(name), quotedList(p.gated))
		}
	}
	switch {
	case injected && (len(p.gated) == 0 || slices.ContainsFunc(p.gate, func(name string) bool { return name != everyApp && !slices.Contains(p.gated, name) })):
		return refuse(keyGate, value, "the pod already has a sidecar, which knows of no such gate, remove "+injectedParts)
	case injected:
		return nil
	}
	text, err := specText(p.spec(spec))
	if err == nil && len(text) > maxSpec {
		err = refuse(keyGate, value, "the sidecar has to know the probes of these containers, which take %d bytes, of which %d are allowed, make them shorter", len(text), maxSpec)
	}
	return err
}

// maxSpec is half of what the kernel takes for one variable of a program.
const maxSpec = 64 << 10

// checkKubeletGate is checkGate in leader-for-life: the sidecar starts when it leads,
// and all that the kubelet starts after it is behind the gate.
func checkKubeletGate(spec *corev1.PodSpec, p plan, value string) error {
	gated := p.gatedByName(spec)
	for i := range spec.Containers {
		name := spec.Containers[i].Name
		if slices.Contains(proxies, name) {
			return refuse(keyGate, value, "in %s the proxy %q would start on the leader alone, and the sidecar may need it to become one, let the mesh add it as a native sidecar", elector.ModeLeaderForLife, name)
		}
		if len(gated) > 0 && !slices.Contains(gated, name) {
			return refuse(keyGate, value, `in %s all app containers start on the leader alone, name %q, too, or use "true"`, elector.ModeLeaderForLife, shorten(name))
		}
	}
	return nil
}

// checkGated refuses a container that the wrapper cannot run.
func checkGated(c *corev1.Container, p plan, volumes []corev1.Volume, value string, injected bool) error {
	name := shorten(c.Name)
	if !p.isTarget(c, false) {
		return refuse(keyGate, value, "the container %q needs the status directory, name it in %s, too", name, Prefix+keyContainers)
	}
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		return refuse(keyGate, value, "the container %q has a postStart hook, which would run while the gate is closed, do its work in the command", name)
	}
	if err := checkGatePlace(c, value, volumes); err != nil {
		return err
	}
	if injected {
		return nil // its command and its probes are led through the gate
	}
	if err := checkCommand(c, p, value); err != nil {
		return err
	}
	_, err := originals(c)
	if u, ok := err.(unresolved); ok { //nolint:errorlint // originals returns nothing else, and wraps nothing
		return refuse(keyGate, value, "the %s of the container %q asks the port %q, which it does not declare, use its number", u.probe, name, shorten(u.port))
	}
	return err
}

func checkCommand(c *corev1.Container, p plan, value string) error {
	name, words := shorten(c.Name), p.commands[c.Name]
	switch {
	case runsWrapper(c):
		return refuse(keyGate, value, "the container %q runs %s already, give it its own command", name, wrapper)
	case len(c.Command) > 0 && words != nil:
		return refuse(keyCommand, p.given[Prefix+keyCommand], "the container %q has a command of its own, leave it out here", name)
	case len(c.Command) > 0:
		return nil
	case words == nil:
		return refuse(keyGate, value, "the container %q has no command, and what its image runs is not known here, so give it one, or add the line that `kubectl elector entrypoint IMAGE --container %q` prints, such as %s: '{%q:[\"/app\"]}'", name, name, Prefix+keyCommand, name)
	}
	if _, ok := imageWords(words, c.Args); !ok {
		return refuse(keyCommand, p.given[Prefix+keyCommand], "the container %q has args, which take the place of what comes after the image's entrypoint, so let the command end with them", name)
	}
	return nil
}

// checkGatePlace refuses a container that has something where the wrapper goes.
func checkGatePlace(c *corev1.Container, value string, volumes []corev1.Volume) error {
	for _, m := range c.VolumeMounts {
		if !isGateMount(m) && within(resolved(m.MountPath), gateDir) || below(gateDir, rooted(m.MountPath)) && readOnly(m, volumes) {
			return refuse(keyGate, value, "the container %q mounts the volume %q at %q, where the gate goes, mount it elsewhere", shorten(c.Name), shorten(m.Name), shorten(m.MountPath))
		}
	}
	return nil
}

func isGateMount(m corev1.VolumeMount) bool {
	return m.Name == VolumeGate && path.Clean(m.MountPath) == gateDir && m.ReadOnly && m.SubPath == "" && m.SubPathExpr == ""
}

// wrapperWords are what stands before the command of a gated container.
func (p plan) wrapperWords() []string {
	return []string{wrapper, "run", "--stop-grace=" + p.stopGrace.String(), "--least-claim=" + p.leastClaim.String(), "--"}
}

// ownCommand is what the container runs without the gate, as the kubelet has to read it.
// Its args stay where they are, and come after it.
func (p plan) ownCommand(c *corev1.Container) []string {
	if len(c.Command) > 0 {
		return c.Command
	}
	words, _ := imageWords(p.commands[c.Name], c.Args)
	return literally(words)
}

// spec is what the sidecar is told of the containers behind the gate.
func (p plan) spec(pod *corev1.PodSpec) gate.Spec {
	spec := gate.Spec{Containers: map[string]gate.Container{}}
	for i := range pod.Containers {
		if c := &pod.Containers[i]; p.isGated(c) {
			spec.Containers[c.Name], _ = originals(c) // checkGated has seen that they can be
		}
	}
	return spec
}

// gateIs reports whether the pod's gate is what the annotation asks for now.
func (p plan) gateIs(key string, spec *corev1.PodSpec) bool {
	if key == keyGate && p.hasKubeletGate() {
		i := slices.IndexFunc(spec.InitContainers, isNamedElector)
		return slices.Contains(spec.InitContainers[i].Args, keepsLeading)
	}
	if key == keyGate {
		return slices.Equal(p.gated, p.gatedByName(spec))
	}
	return !slices.ContainsFunc(spec.Containers, func(c corev1.Container) bool { return p.isGated(&c) && !p.runsAs(key, &c) })
}

// runsAs reports whether the container runs what elector.io/command says, or with the
// grace of elector.io/stop-grace.
func (p plan) runsAs(key string, c *corev1.Container) bool {
	rest, ok := afterWrapper(c.Command, "run")
	words, named := p.commands[c.Name]
	switch {
	case !ok:
		return false
	case key == keyStopGrace:
		return slices.Equal(c.Command[:len(c.Command)-len(rest)], p.wrapperWords())
	case named:
		words, ok = imageWords(words, c.Args)
		return ok && slices.Equal(rest, literally(words))
	}
	return true
}

// close puts the gate before the containers of a copy of the pod. Their probes are led
// through it once: what others make of them since, such as a mesh, is theirs.
func (p plan) close(spec *corev1.PodSpec, injected bool) {
	for i := range spec.Containers {
		c := &spec.Containers[i]
		if !p.isGated(c) {
			continue
		}
		if !runsWrapper(c) {
			c.Command = slices.Concat(p.wrapperWords(), p.ownCommand(c))
		}
		if !injected {
			detour{c.Name, p.healthPort}.lead(c)
		}
	}
}

// closes reports whether close has anything to do.
func (p plan) closes(spec *corev1.PodSpec, injected bool) bool {
	return len(p.gated) > 0 && (!injected || slices.ContainsFunc(spec.Containers, func(c corev1.Container) bool { return p.isGated(&c) && !runsWrapper(&c) }))
}

// ungate takes back what close did. asked is what the pod asked for when it did.
func ungate(spec *corev1.PodSpec, was gate.Spec, healthPort int32, asked map[string]string) {
	p := plan{}
	_ = readCommand(&p, asked[keyCommand]) // nothing, or what was admitted
	for i := range spec.Containers {
		c := &spec.Containers[i]
		before, gated := was.Containers[c.Name]
		if !gated {
			continue
		}
		c.VolumeMounts = without(c.VolumeMounts, isGateMount)
		detour{c.Name, healthPort}.straighten(c, before)
		rest, ok := afterWrapper(c.Command, "run")
		if !ok {
			continue
		}
		if words, named := imageWords(p.commands[c.Name], c.Args); named && slices.Equal(rest, literally(words)) {
			rest = nil
		}
		c.Command = rest
	}
}
