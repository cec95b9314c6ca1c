package inject

import (
	"encoding/json"
	"fmt"
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
	wanted, err := asks(pod.Annotations)
	if err != nil {
		return nil, err
	}
	if !wanted {
		return pod.DeepCopy(), nil
	}
	opts = opts.withDefaults()
	was, injected := StatusOf(pod)
	p, err := newPlan(&pod.ObjectMeta, was.Lock, opts)
	if err != nil {
		return nil, err
	}
	if err := check(pod, p, was, injected, opts); err != nil {
		return nil, err
	}

	out := pod.DeepCopy()
	if injected {
		p.restore(out)
	} else {
		status := Status{Version: opts.Version, Lock: p.settings.Lock, Mode: p.settings.Mode, LockBy: chosenBy(&pod.ObjectMeta, p.settings.Mode)}
		note, err := json.Marshal(injection{Status: status, Asked: asked(pod.Annotations)})
		if err != nil {
			return nil, fmt.Errorf("noting the status: %w", err)
		}
		out.Annotations[AnnotationStatus] = string(note)
		out.Spec.InitContainers = slices.Insert(out.Spec.InitContainers, p.place(&out.Spec), sidecar(p, &out.Spec, opts))
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	if !injected {
		// With a sidecar and without the label it is a copy, as of `kubectl debug --copy-to
		// --keep-annotations`, which has none of the labels by which a Service would find
		// its leader: the sidecar stands aside.
		out.Labels[LabelInjected] = "true"
	}
	out.Labels[LabelRole] = string(elector.RoleStandby)
	for _, v := range volumes() {
		if !slices.ContainsFunc(out.Spec.Volumes, func(have corev1.Volume) bool { return have.Name == v.Name }) {
			out.Spec.Volumes = append(out.Spec.Volumes, v)
		}
	}
	for c := range p.targets(&out.Spec) {
		tell(c, p)
	}
	return out, nil
}

// restore makes of the sidecar that is there a native sidecar again, and puts it
// in its place. Mutators built against an API older than 1.28 drop the field, and the
// pod would wait forever for the sidecar to end. Mutators that were asked after us
// add init containers at the end; a pod that hangs in one of these must be no
// candidate, either.
func (p plan) restore(pod *corev1.Pod) {
	i := slices.IndexFunc(pod.Spec.InitContainers, isNamedElector)
	c := pod.Spec.InitContainers[i]
	c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	pod.Spec.InitContainers = slices.Delete(pod.Spec.InitContainers, i, i+1)
	pod.Spec.InitContainers = slices.Insert(pod.Spec.InitContainers, p.place(&pod.Spec), c)
}

// place is the sidecar's among the other init containers: the last, so that a pod
// which hangs in one of them is no candidate yet, and that native sidecars of a mesh
// or a database, which start before, stop after the lock has been released. An init
// container that is to look whether its pod leads needs the sidecar before it, and
// so does a native sidecar: whoever names one in elector.io/containers has the
// sidecar start before it and stop after it, wherever mutators put it since.
func (p plan) place(spec *corev1.PodSpec) int {
	for i := range spec.InitContainers {
		if slices.Contains(p.containers, spec.InitContainers[i].Name) {
			return i
		}
	}
	return len(spec.InitContainers)
}

// targets yields the containers that get the mount and the variables: by
// default those of the app, otherwise the named ones, init containers too.
func (p plan) targets(spec *corev1.PodSpec) func(yield func(*corev1.Container) bool) {
	return func(yield func(*corev1.Container) bool) {
		for i := range spec.Containers {
			c := &spec.Containers[i]
			if (p.containers == nil || slices.Contains(p.containers, c.Name)) && !yield(c) {
				return
			}
		}
		for i := range spec.InitContainers {
			c := &spec.InitContainers[i]
			if c.Name != ContainerName && slices.Contains(p.containers, c.Name) && !yield(c) {
				return
			}
		}
	}
}

// tell gives an app's container the status directory and the variables that it
// does not have.
func tell(c *corev1.Container, p plan) {
	if !slices.ContainsFunc(c.VolumeMounts, p.isStatusMount) {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: VolumeStatus, MountPath: p.statusDir, ReadOnly: true})
	}
	for _, v := range append(p.variables(), fromField("POD_NAME", "metadata.name")) {
		if !slices.ContainsFunc(c.Env, func(have corev1.EnvVar) bool { return have.Name == v.Name }) {
			c.Env = append(c.Env, v)
		}
	}
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
	for _, check := range []func(*corev1.PodSpec, plan, bool) error{checkNames, checkPorts, checkTargets, checkResources} {
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
func checkNames(spec *corev1.PodSpec, _ plan, injected bool) error {
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
		if v.Name == VolumeStatus || v.Name == VolumeToken {
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
