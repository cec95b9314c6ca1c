package inject

import (
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// injection is what AnnotationStatus holds: the status, and what the pod asked for
// when it got its sidecar, by the annotations' names after Prefix. In a template of
// Template's, Carried are those that came from the workload.
type injection struct {
	Status
	Asked   map[string]string `json:"asked,omitempty"`
	Carried []string          `json:"carried,omitempty"`
}

// askedBefore returns what an injected pod asked for; nothing if it does not say.
func askedBefore(pod *corev1.Pod) map[string]string {
	var note injection
	if err := json.Unmarshal([]byte(pod.Annotations[AnnotationStatus]), &note); err != nil {
		return nil
	}
	return note.Asked
}

// asked returns what the annotations ask for, enabled apart.
func asked(annotations map[string]string) map[string]string {
	asked := map[string]string{}
	for key, value := range own(annotations) {
		asked[strings.TrimPrefix(key, Prefix)] = value
	}
	delete(asked, keyEnabled)
	return asked
}

// injectedParts names what to take out of a manifest for the pod to be as it was
// before it got its sidecar, or near enough to get another.
const injectedParts = `the annotation "` + AnnotationStatus + `", the init container "` + ContainerName +
	`", and the volumes "` + VolumeStatus + `" and "` + VolumeToken + `" with their mounts`

// checkTemplate refuses a template that was made from an injected pod: its pods would
// contend for that one's lock, whatever the workload's name. A template that has the
// workload's own lock got its sidecar from Template, or might as well have.
func (w workload) checkTemplate(opts Options) error {
	if wanted, err := asks(w.template.Annotations); err != nil || !wanted {
		return err
	}
	if _, ok := w.template.Annotations[AnnotationStatus]; !ok || !slices.ContainsFunc(w.template.Spec.InitContainers, isNamedElector) {
		return nil
	}
	pod := w.pod()
	if has, ok := StatusOf(pod); ok {
		opts.Settings.Mode = has.Mode // what the cluster's default is counts for pods that have no sidecar yet
		if lock, err := lockOf(&pod.ObjectMeta, "", opts); err == nil && lock == has.Lock {
			return nil
		}
	}
	return refusePod("the pod template is of a pod that has a sidecar already, whose lock it would share, remove " + injectedParts)
}

// checkInjected refuses a copy of an injected pod whose annotations were changed or
// removed while its sidecar was not.
//
// What the pod asked for when it got its sidecar is obeyed, whatever became of the
// sidecar since: mutators rewrite images and resources. Anything else must be
// what the sidecar has, but for what the manager reads from the pod as it is.
func checkInjected(pod *corev1.Pod, was Status, p plan, opts Options) error {
	const fix = "the pod already has a sidecar with %q, undo the change of this annotation, or remove " + injectedParts
	if p.settings.Lock != was.Lock {
		return refuse(keyLock, p.settings.Lock, fix, was.Lock)
	}
	if v, chosen := pod.Annotations[Prefix+keyMode]; chosen && v != string(was.Mode) {
		return refuse(keyMode, v, fix, was.Mode)
	}
	i := slices.IndexFunc(pod.Spec.InitContainers, isNamedElector)
	has, wanted := &pod.Spec.InitContainers[i], sidecar(p, &pod.Spec, opts)
	before := askedBefore(pod)
	changed := false
	for _, a := range annotations {
		name := strings.TrimPrefix(a.Key, Prefix)
		value, given := pod.Annotations[a.Key]
		old, asked := before[name]
		if given == asked && old == value || a.managers {
			continue
		}
		if !given {
			// The sidecar has it still, and what the app is told would be the default.
			return refuse(name, "", fix, shorten(old))
		}
		changed = true
		if a.of != nil && a.of(has) != a.of(&wanted) {
			return refuse(name, value, fix, shorten(a.of(has)))
		}
		if a.gates && !p.gateIs(name, &pod.Spec) {
			return refuse(name, value, fix, shorten(old))
		}
	}
	if !changed {
		return nil
	}
	if err := checkResources(&pod.Spec, p, false); err != nil {
		return err
	}
	return p.checkTold(&pod.Spec)
}

// checkTold refuses to leave the status directory where it should not be any more:
// nothing is taken out of a pod.
func (p plan) checkTold(spec *corev1.PodSpec) error {
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			c := &list[i]
			for _, m := range c.VolumeMounts {
				switch {
				case c.Name == ContainerName || m.Name != VolumeStatus:
				case !p.isStatusMount(m):
					return refuse(keyStatusDir, p.statusDir, "container %q has the status directory at %q already, remove that mount or this annotation", shorten(c.Name), shorten(m.MountPath))
				case p.containers != nil && !slices.Contains(p.containers, c.Name):
					return refuse(keyContainers, strings.Join(p.containers, ", "), "container %q has the status directory already, name it or remove its mount of %q", shorten(c.Name), VolumeStatus)
				}
			}
		}
	}
	return nil
}

// flagOf returns a function that finds the value of a flag in a sidecar's
// arguments.
func flagOf(name string) func(*corev1.Container) string {
	return func(c *corev1.Container) string {
		for _, arg := range c.Args {
			if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
				return value
			}
		}
		return ""
	}
}

// portOf is flagOf for an address, of which it returns the port.
func portOf(name string) func(*corev1.Container) string {
	address := flagOf(name)
	return func(c *corev1.Container) string {
		value := address(c)
		return value[strings.LastIndex(value, ":")+1:]
	}
}

func imageOf(c *corev1.Container) string { return c.Image }

// requestOf and limitOf return functions that find what a sidecar's resources are.
func requestOf(name corev1.ResourceName) func(*corev1.Container) string {
	return func(c *corev1.Container) string { return amount(c.Resources.Requests, name) }
}

func limitOf(name corev1.ResourceName) func(*corev1.Container) string {
	return func(c *corev1.Container) string { return amount(c.Resources.Limits, name) }
}

func amount(list corev1.ResourceList, name corev1.ResourceName) string {
	q, ok := list[name]
	if !ok || !ordinary(q) {
		return ""
	}
	return q.String()
}
