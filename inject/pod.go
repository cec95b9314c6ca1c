package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/elector-io/elector/elector"
)

// Pod returns the pod with the sidecar, or the pod's equal if it does not ask
// for one. The argument is not touched. opts must be valid.
//
// Every refusal is a *elector.FieldError.
func Pod(pod *corev1.Pod, opts Options) (*corev1.Pod, error) {
	a, err := Add(pod, opts)
	if err != nil {
		return nil, err
	}
	out := pod.DeepCopy()
	a.apply(out)
	if a.Closes {
		a.plan.close(&out.Spec, a.Sidecar == nil)
	}
	return out, nil
}

// Addition is what Pod changes in a pod. All of it is added to what is there, and
// nothing of it is there already.
type Addition struct {
	Annotations, Labels map[string]string
	// Sidecar is to be inserted among the init containers, at Place. It is nil for a
	// pod that has it, and for one that does not ask.
	Sidecar *corev1.Container
	Place   int
	// Moves tells that the pod's own sidecar has to become a native one again, or to
	// go elsewhere among the init containers, to Place. That is no addition.
	Moves bool
	// Closes tells that containers get behind the gate, by another command and other
	// probes. That is no addition, either.
	Closes  bool
	plan    plan
	Volumes []corev1.Volume
	// Containers and InitContainers get variables and mounts, those of the same index
	// before the sidecar is inserted or moved. They are as long as the pod's, or nil
	// if none gets any.
	Containers, InitContainers []Told
}

// Told is what tells an app's container where to look.
type Told struct {
	Env          []corev1.EnvVar
	VolumeMounts []corev1.VolumeMount
}

// Add returns what Pod changes in the pod; nothing if the pod does not ask. It
// shares memory with the pod, which is not touched. opts must be valid.
//
// Every refusal is a *elector.FieldError.
func Add(pod *corev1.Pod, opts Options) (a Addition, err error) {
	wanted, err := asks(pod.Annotations)
	if err != nil || !wanted {
		return a, err
	}
	opts = opts.withDefaults()
	was, injected := StatusOf(pod)
	if _, gated := pod.Annotations[Prefix+keyGate]; gated && injected {
		opts.Settings.Mode = was.Mode // what the cluster's default is counts for pods that have no sidecar yet
	}
	p, err := newPlan(&pod.ObjectMeta, was.Lock, opts)
	if err != nil {
		return a, err
	}
	chooseGated(&p, &pod.Spec, injected)
	if err := check(pod, p, was, injected, opts); err != nil {
		return a, err
	}
	a.plan, a.Closes = p, p.closes(&pod.Spec, injected)
	labels := map[string]string{LabelRole: string(elector.RoleStandby)}
	if injected {
		a.Place, a.Moves = p.restores(&pod.Spec)
	} else {
		status := Status{Version: opts.Version, Lock: p.settings.Lock, Mode: p.settings.Mode, LockBy: chosenBy(&pod.ObjectMeta, p.settings.Mode)}
		note, err := json.Marshal(injection{Status: status, Asked: asked(pod.Annotations)})
		if err != nil {
			return a, fmt.Errorf("noting the status: %w", err)
		}
		a.Annotations = missing(pod.Annotations, map[string]string{AnnotationStatus: string(note)})
		// With a sidecar and without the label it is a copy, as of `kubectl debug --copy-to
		// --keep-annotations`, which has none of the labels by which a Service would find
		// its leader: the sidecar stands aside.
		labels[LabelInjected] = "true"
		a.Place, a.Sidecar = p.place(&pod.Spec), new(sidecar(p, &pod.Spec, opts))
	}
	a.Labels = missing(pod.Labels, labels)
	for _, v := range p.volumes() {
		if !slices.ContainsFunc(pod.Spec.Volumes, func(have corev1.Volume) bool { return have.Name == v.Name }) {
			a.Volumes = append(a.Volumes, v)
		}
	}
	a.Containers, a.InitContainers = p.tells(pod.Spec.Containers, false), p.tells(pod.Spec.InitContainers, true)
	return a, nil
}

// missing returns what is not in have as it is in want.
func missing(have, want map[string]string) map[string]string {
	maps.DeleteFunc(want, func(key, value string) bool {
		v, ok := have[key]
		return ok && v == value
	})
	return want
}

// apply makes the changes. The pod is a copy of the one that they were made for.
func (a *Addition) apply(pod *corev1.Pod) {
	set(&pod.Annotations, a.Annotations)
	set(&pod.Labels, a.Labels)
	pod.Spec.Volumes = append(pod.Spec.Volumes, a.Volumes...)
	tell(pod.Spec.Containers, a.Containers)
	tell(pod.Spec.InitContainers, a.InitContainers)
	switch {
	case a.Sidecar != nil:
		pod.Spec.InitContainers = slices.Insert(pod.Spec.InitContainers, a.Place, *a.Sidecar)
	case a.Moves:
		i := slices.IndexFunc(pod.Spec.InitContainers, isNamedElector)
		c := pod.Spec.InitContainers[i]
		c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		pod.Spec.InitContainers = slices.Insert(slices.Delete(pod.Spec.InitContainers, i, i+1), a.Place, c)
	}
}

func set(all *map[string]string, more map[string]string) {
	if *all == nil && len(more) > 0 {
		*all = map[string]string{}
	}
	maps.Copy(*all, more)
}

func tell(containers []corev1.Container, told []Told) {
	for i := range told {
		containers[i].Env = append(containers[i].Env, told[i].Env...)
		containers[i].VolumeMounts = append(containers[i].VolumeMounts, told[i].VolumeMounts...)
	}
}

// restores returns where the sidecar that is there has to be, and whether it is not
// there, or no native sidecar any more. Mutators built against an API older than 1.28
// drop the field, and the pod would wait forever for the sidecar to end. Mutators that
// were asked after us add init containers at the end; a pod that hangs in one of these
// must be no candidate, either.
func (p plan) restores(spec *corev1.PodSpec) (place int, moves bool) {
	i := slices.IndexFunc(spec.InitContainers, isNamedElector)
	policy := spec.InitContainers[i].RestartPolicy
	place = p.place(spec)
	return place, place != i || policy == nil || *policy != corev1.ContainerRestartPolicyAlways
}

// place is the sidecar's among the other init containers: the last, so that a pod
// which hangs in one of them is no candidate yet, and that native sidecars of a mesh
// or a database, which start before, stop after the lock has been released. An init
// container that is to look whether its pod leads needs the sidecar before it, and
// so does a native sidecar: whoever names one in elector.io/containers has the
// sidecar start before it and stop after it, wherever mutators put it since.
func (p plan) place(spec *corev1.PodSpec) int {
	others := 0
	for i := range spec.InitContainers {
		switch name := spec.InitContainers[i].Name; {
		case name == ContainerName:
			continue
		case p.behindSidecar(name):
			return others
		}
		others++
	}
	return others
}

// targets yields the containers that get the mount and the variables: by
// default those of the app, otherwise the named ones, init containers too.
func (p plan) targets(spec *corev1.PodSpec) func(yield func(*corev1.Container) bool) {
	return func(yield func(*corev1.Container) bool) {
		for i := range spec.Containers {
			if c := &spec.Containers[i]; p.isTarget(c, false) && !yield(c) {
				return
			}
		}
		for i := range spec.InitContainers {
			if c := &spec.InitContainers[i]; p.isTarget(c, true) && !yield(c) {
				return
			}
		}
	}
}

func (p plan) isTarget(c *corev1.Container, isInit bool) bool {
	if isInit {
		return c.Name != ContainerName && slices.Contains(p.containers, c.Name)
	}
	return p.containers == nil || slices.Contains(p.containers, c.Name)
}

// tells returns what to tell each of the containers, nil if none is told anything.
func (p plan) tells(containers []corev1.Container, areInit bool) []Told {
	var all []Told
	for i := range containers {
		if c := &containers[i]; p.isTarget(c, areInit) {
			if all == nil {
				all = make([]Told, len(containers))
			}
			all[i] = p.told(c)
		}
	}
	return all
}

// told returns the status directory and the variables that an app's container does
// not have.
func (p plan) told(c *corev1.Container) (t Told) {
	if !slices.ContainsFunc(c.VolumeMounts, p.isStatusMount) {
		t.VolumeMounts = []corev1.VolumeMount{{Name: VolumeStatus, MountPath: p.statusDir, ReadOnly: true}}
	}
	if p.isGated(c) && !slices.ContainsFunc(c.VolumeMounts, isGateMount) {
		t.VolumeMounts = append(t.VolumeMounts, corev1.VolumeMount{Name: VolumeGate, MountPath: gateDir, ReadOnly: true})
	}
	for _, v := range append(p.variables(), fromField("POD_NAME", "metadata.name")) {
		if !slices.ContainsFunc(c.Env, func(have corev1.EnvVar) bool { return have.Name == v.Name }) {
			t.Env = append(t.Env, v)
		}
	}
	return t
}

// variables tell the app where to look.
func (p plan) variables() []corev1.EnvVar {
	return []corev1.EnvVar{
		{Name: "ELECTOR_STATUS_DIR", Value: p.statusDir},
		{Name: "ELECTOR_URL", Value: fmt.Sprintf("http://127.0.0.1:%d", p.port)},
	}
}

func (p plan) isStatusMount(m corev1.VolumeMount) bool {
	return m.Name == VolumeStatus && path.Clean(m.MountPath) == p.statusDir && m.ReadOnly && m.SubPath == "" && m.SubPathExpr == ""
}

// maxContainers is more than any node runs in one pod. Each takes 10 KB while the
// pod is admitted, and an API server would send a hundred thousand.
const maxContainers = 1000

// check refuses what cannot work, before anything is changed.
func check(pod *corev1.Pod, p plan, was Status, injected bool, opts Options) error {
	spec := &pod.Spec
	if len(spec.Containers) == 0 {
		return refusePod("the pod has no containers, add one")
	}
	if n := len(spec.Containers) + len(spec.InitContainers); n > maxContainers {
		return refusePod("the pod has %d containers, use at most %d", n, maxContainers)
	}
	if isStatic(pod) {
		return refusePod("the pod is static and only its kubelet's manifest can change it, run it as a workload or remove the annotation")
	}
	if isWindows(spec) {
		return refusePod("the pod runs on Windows and the sidecar needs Linux, remove the annotation")
	}
	if injected {
		if err := checkInjected(pod, was, p, opts); err != nil {
			return err
		}
	}
	for _, check := range []func(*corev1.PodSpec, plan, bool) error{checkNames, checkPorts, checkTargets, checkGate, checkResources} {
		if err := check(spec, p, injected); err != nil {
			return err
		}
	}
	return nil
}

// isStatic recognises pods that a kubelet reads from its disk. The API server
// shows their mirror only: nothing that is changed here reaches the kubelet.
func isStatic(pod *corev1.Pod) bool {
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return true
	}
	source, ok := pod.Annotations["kubernetes.io/config.source"]
	return ok && source != "api"
}

func isWindows(spec *corev1.PodSpec) bool {
	if spec.OS != nil && spec.OS.Name != "" {
		return spec.OS.Name == corev1.Windows
	}
	return spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows) ||
		spec.NodeSelector["beta.kubernetes.io/os"] == string(corev1.Windows)
}

// checkNames refuses containers and volumes that have the names of elector's.
func checkNames(spec *corev1.PodSpec, p plan, injected bool) error {
	own := 0
	if injected {
		own = 1
	}
	for _, c := range spec.InitContainers {
		if c.Name == ContainerName {
			own--
		}
	}
	for _, c := range spec.Containers {
		if c.Name == ContainerName {
			own = -1
		}
	}
	for _, c := range spec.EphemeralContainers {
		if c.Name == ContainerName {
			own = -1
		}
	}
	if own < 0 {
		return refusePod("the pod has a container %q of its own, which is the sidecar's name, rename it", ContainerName)
	}
	if injected {
		return nil
	}
	for _, v := range spec.Volumes {
		if v.Name == VolumeStatus || v.Name == VolumeToken || v.Name == VolumeGate && p.hasWrapper() {
			return refusePod("the pod has a volume %q of its own, which is a name of the sidecar's, rename it", v.Name)
		}
	}
	return nil
}

// checkPorts refuses ports that a container of the pod declares: all of them
// share one network. With hostNetwork that is the node's.
func checkPorts(spec *corev1.PodSpec, p plan, _ bool) error {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if list[i].Name == ContainerName {
				continue
			}
			for _, port := range list[i].Ports {
				if port.Protocol != "" && port.Protocol != corev1.ProtocolTCP {
					continue
				}
				var key string
				switch port.ContainerPort {
				case p.port:
					key = keyPort
				case p.healthPort:
					key = keyHealthPort
				default:
					continue
				}
				return refuse(key, strconv.Itoa(int(port.ContainerPort)), "container %q declares this port, choose another", shorten(list[i].Name))
			}
		}
	}
	return nil
}

// checkTargets refuses names of containers that are not there, and containers
// that cannot be told.
func checkTargets(spec *corev1.PodSpec, p plan, _ bool) error {
	for _, name := range p.containers {
		if !slices.Contains(containersOf(spec), name) {
			return refuse(keyContainers, strings.Join(p.containers, ", "), "the pod has no container %q, use %s", shorten(name), quotedList(containersOf(spec)))
		}
	}
	for c := range p.targets(spec) {
		if err := checkTarget(c, p, spec.Volumes); err != nil {
			return err
		}
	}
	return nil
}

func checkTarget(c *corev1.Container, p plan, volumes []corev1.Volume) error {
	if err := checkPlace(c, p, volumes); err != nil {
		return err
	}
	for _, want := range p.variables() {
		for _, have := range c.Env {
			if have.Name == want.Name && have.Value != want.Value {
				return refusePod("container %q sets the variable %s itself, remove it or set it to %q", shorten(c.Name), have.Name, want.Value)
			}
		}
	}
	return nil
}

// checkResources refuses sizes that the pod's own resources leave no room for.
func checkResources(spec *corev1.PodSpec, p plan, injected bool) error {
	if injected {
		return nil
	}
	for _, q := range []struct {
		key  string
		of   quantity
		name corev1.ResourceName
	}{
		{keyCPURequest, p.cpu, corev1.ResourceCPU},
		{keyMemoryRequest, p.memory, corev1.ResourceMemory},
		{keyMemoryLimit, p.limit, corev1.ResourceMemory},
	} {
		if q.of.chosen && podLevel(spec, q.name) {
			return refuse(q.key, p.given[Prefix+q.key], "the pod has %s at pod level, which the sidecar shares, remove the annotation", q.name)
		}
	}
	if p.memory.chosen && guaranteed(spec) && p.memory.Cmp(p.limit.Quantity) != 0 {
		return refuse(keyMemoryRequest, p.given[Prefix+keyMemoryRequest], "to keep the pod's QoS class Guaranteed it must equal %s (%s)", Prefix+keyMemoryLimit, &p.limit.Quantity)
	}
	return nil
}

// containersOf returns the names of the app's containers and init containers.
func containersOf(spec *corev1.PodSpec) []string {
	var names []string
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			if list[i].Name != ContainerName {
				names = append(names, list[i].Name)
			}
		}
	}
	return names
}

const (
	maxShown  = 80 // characters of a name or value in a sentence
	maxListed = 8  // names in a list
)

// shorten keeps a huge value from drowning the sentence.
func shorten(s string) string {
	if len(s) <= maxShown {
		return s
	}
	if r := []rune(s); len(r) > maxShown {
		return string(r[:maxShown]) + "…"
	}
	return s
}

func quotedList(names []string) string {
	var b strings.Builder
	for i, name := range names {
		switch {
		case i == maxListed:
			return b.String() + " or another of its containers"
		case i > 0 && i == len(names)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(shorten(name)))
	}
	return b.String()
}
