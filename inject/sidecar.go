package inject

import (
	"fmt"
	"math"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/elector-io/elector/elector"
	"github.com/elector-io/elector/elector/gate"
)

const (
	// tokenDir is where client libraries look for their ServiceAccount. A mount
	// there also keeps the ServiceAccount admission plugin from adding another.
	tokenDir = "/var/run/secrets/kubernetes.io/serviceaccount" //nolint:gosec // A directory, not a credential.
	// tokenSeconds is what the ServiceAccount admission plugin asks for; the extra
	// seven seconds mark tokens that client libraries renew in time.
	tokenSeconds = 3607
	// worldReadable lets any UID read the token's files: the sidecar's is not
	// known here.
	worldReadable = 0o644
	// unprivileged is the user of distroless "nonroot" images.
	unprivileged = 65532
)

// sidecar returns the container that elects.
func sidecar(p plan, spec *corev1.PodSpec, opts Options) corev1.Container {
	httpAddress := fmt.Sprintf("--http-address=127.0.0.1:%d", p.port)
	s := p.settings
	args := []string{
		"--" + elector.FieldLock + "=" + s.Lock,
		"--" + elector.FieldMode + "=" + string(s.Mode),
		"--" + elector.FieldLeaseDuration + "=" + s.LeaseDuration.String(),
		"--" + elector.FieldRenewDeadline + "=" + s.RenewDeadline.String(),
		"--" + elector.FieldRetryPeriod + "=" + s.RetryPeriod.String(),
		"--status-dir=" + statusDir,
		httpAddress,
		fmt.Sprintf("--health-address=:%d", p.healthPort),
		injectedArg,
	}
	if p.logLevel > 0 {
		args = append(args, "--v="+strconv.Itoa(p.logLevel))
	}
	c := corev1.Container{
		Name:            ContainerName,
		Image:           p.image,
		ImagePullPolicy: opts.ImagePullPolicy,
		Args:            args,
		Env: []corev1.EnvVar{
			fromField("POD_NAME", "metadata.name"),
			fromField("POD_NAMESPACE", "metadata.namespace"),
			fromField("POD_UID", "metadata.uid"),
			fromField("NODE_NAME", "spec.nodeName"),
			fromField("POD_INJECTED", "metadata.labels['"+LabelInjected+"']"),
			fromField("POD_ENABLED", "metadata.annotations['"+Prefix+keyEnabled+"']"),
			fromField("POD_STATUS", "metadata.annotations['"+AnnotationStatus+"']"),
			// Else the runtime begins by setting itself up for each core of the node.
			{Name: "GOMAXPROCS", Value: "1"},
		},
		Ports:         ports(p, spec),
		Resources:     resources(p, spec, opts),
		RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		VolumeMounts: []corev1.VolumeMount{
			{Name: VolumeStatus, MountPath: statusDir},
			{Name: VolumeToken, MountPath: tokenDir, ReadOnly: true},
		},
		StartupProbe:             startupProbe(httpAddress),
		SecurityContext:          securityContext(spec),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
	switch {
	case len(p.gated) > 0:
		p.keepGate(&c, spec)
	case p.hasKubeletGate():
		c.Args = append(c.Args, keepsLeading)
		c.StartupProbe = leaderProbe(httpAddress)
	}
	return c
}

// keepGate makes the container the sidecar of a pod with containers behind the wrapper.
func (p plan) keepGate(c *corev1.Container, spec *corev1.PodSpec) {
	// checkGate has seen that it can be written.
	containers, _ := specText(p.spec(spec))
	c.Args = append(c.Args, "--gate-dir="+sidecarGateDir, "--gate-grace="+stopsWithin(spec).String())
	// An address that a probe does not name is the pod's.
	c.Env = append(c.Env, fromField("POD_IP", "status.podIP"), corev1.EnvVar{Name: gate.SpecEnv, Value: containers})
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: VolumeGate, MountPath: sidecarGateDir})
}

// stopsWithin is how long the kubelet lets the app stop: at least the second that it
// gives to a pod that has none.
func stopsWithin(spec *corev1.PodSpec) time.Duration {
	if spec.TerminationGracePeriodSeconds == nil {
		return corev1.DefaultTerminationGracePeriodSeconds * time.Second
	}
	return time.Duration(min(max(1, *spec.TerminationGracePeriodSeconds), maxStopsWithin)) * time.Second
}

// maxStopsWithin in seconds is more than a year, and keeps what is printed a duration.
const maxStopsWithin = math.MaxInt32

// keepsLeading has the sidecar hand over to nobody: there is no wrapper that would stop
// the app.
const keepsLeading = "--resign=false"

// leaderProbe holds the app back until the sidecar leads, for as long as that takes. The
// command itself waits, for an hour, so that a standby costs nothing; kubelets tell
// of each that ends.
func leaderProbe(httpAddress string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{program, "ready", httpAddress, "--leader=true", "--timeout=59m50s"}}},
		PeriodSeconds: 1, TimeoutSeconds: 3600, FailureThreshold: math.MaxInt32,
	}
}

// injectedArg tells the sidecar whether its pod is one that it was made for. The
// kubelet fills in what the pod has in the end: `kubectl debug --copy-to` drops
// labels and annotations, and keeps the container. Nobody asks us about a pod that
// says enabled "false" or nothing, so a copy that does keeps the rest.
const injectedArg = "--injected=$(POD_INJECTED) $(POD_ENABLED) $(POD_STATUS)"

// startupProbe holds the app back until the sidecar can be asked, so that the app
// finds status.json from its first instruction on.
//
// It executes the program itself. Meshes point probes over HTTP, TCP and gRPC at
// a port of their proxy, which may start after the sidecar and would never be
// reached (Istio's rewriteAppHTTPProbers, for init containers, too); they leave
// commands alone. It is a probe and no postStart hook: of a hook a kubelet that
// restarts knows nothing, and starts the app.
//
// There is no liveness probe: the program watches its own loop, and ends if that
// is stuck. So nothing is probed once the sidecar has started.
func startupProbe(httpAddress string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{program, "ready", httpAddress, "--timeout=5s"}}},
		// The command waits itself, so one is enough nearly always. Twelve make a minute;
		// the rest of TimeoutSeconds is for nodes on which it takes long to begin one.
		PeriodSeconds: 1, TimeoutSeconds: 10, FailureThreshold: 12,
	}
}

// program is where the image has the program, also an image of elector.io/image.
const program = "/elector"

func fromField(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
}

// ports declares what the scheduler and people should know. With hostNetwork
// both ports are taken on the node: declared as host ports, a second such pod
// waits for another node instead of failing on this one.
func ports(p plan, spec *corev1.PodSpec) []corev1.ContainerPort {
	health := corev1.ContainerPort{Name: PortHealth, ContainerPort: p.healthPort, Protocol: corev1.ProtocolTCP}
	if !spec.HostNetwork {
		return []corev1.ContainerPort{health}
	}
	health.HostPort = p.healthPort
	return []corev1.ContainerPort{health, {
		Name: PortHTTP, ContainerPort: p.port, HostPort: p.port, HostIP: "127.0.0.1", Protocol: corev1.ProtocolTCP,
	}}
}

// securityContext satisfies the Pod Security level restricted.
func securityContext(spec *corev1.PodSpec) *corev1.SecurityContext {
	sc := &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		ReadOnlyRootFilesystem:   new(true),
		RunAsNonRoot:             new(true),
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	// The image's own user is left alone, because OpenShift assigns another. A pod
	// that makes root the user of all its containers leaves no choice.
	if pod := spec.SecurityContext; pod != nil && pod.RunAsUser != nil && *pod.RunAsUser == 0 {
		sc.RunAsUser = new(int64(unprivileged))
	}
	return sc
}

// resources returns small requests and a memory limit. A CPU limit would
// throttle renewals and lose leases, so there is one only where the QoS class
// Guaranteed demands it. What the pod declares at pod level the sidecar takes
// from there: a request of its own could exceed what the pod has budgeted.
func resources(p plan, spec *corev1.PodSpec, opts Options) corev1.ResourceRequirements {
	if guaranteed(spec) {
		cpu := p.cpu.Quantity
		if !p.cpu.chosen {
			cpu = opts.GuaranteedCPU
		}
		all := corev1.ResourceList{corev1.ResourceCPU: cpu, corev1.ResourceMemory: p.limit.Quantity}
		return corev1.ResourceRequirements{Requests: all, Limits: all.DeepCopy()}
	}
	r := corev1.ResourceRequirements{}
	if !podLevel(spec, corev1.ResourceCPU) {
		r.Requests = corev1.ResourceList{corev1.ResourceCPU: p.cpu.Quantity}
	}
	if !podLevel(spec, corev1.ResourceMemory) {
		if r.Requests == nil {
			r.Requests = corev1.ResourceList{}
		}
		r.Requests[corev1.ResourceMemory] = p.memory.Quantity
		r.Limits = corev1.ResourceList{corev1.ResourceMemory: p.limit.Quantity}
	}
	return r
}

// podLevel reports whether the pod as a whole requests or limits the resource.
func podLevel(spec *corev1.PodSpec, name corev1.ResourceName) bool {
	if spec.Resources == nil {
		return false
	}
	_, requested := spec.Resources.Requests[name]
	_, limited := spec.Resources.Limits[name]
	return requested || limited
}

// guaranteed reports whether the containers give the pod the QoS class
// Guaranteed, as the kubelet computes it: every container, init containers
// included, has limits for CPU and memory above zero and requests equal to them.
// A missing request counts as equal, because the API server fills it in; a pod
// template is seen before it does. A pod with resources at pod level has its
// class from there, whatever its containers say.
func guaranteed(spec *corev1.PodSpec) bool {
	if spec.Resources != nil {
		return false
	}
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				if !pinned(&list[i].Resources, name) {
					return false
				}
			}
		}
	}
	return len(spec.Containers) > 0
}

func pinned(r *corev1.ResourceRequirements, name corev1.ResourceName) bool {
	limit, ok := r.Limits[name]
	if !ok || !ordinary(limit) {
		return false
	}
	request, ok := r.Requests[name]
	return !ok || ordinary(request) && request.Cmp(limit) == 0
}

// ordinary reports whether a quantity is above zero and of this world.
// Comparing 1e100000000 with anything else takes minutes.
func ordinary(q resource.Quantity) bool {
	v := q.AsApproximateFloat64()
	return v >= 1e-9 && v <= 1e18
}

// volumes returns what the sidecar mounts. The token is the sidecar's own, so
// that it works with automountServiceAccountToken: false and leaves the app
// without one.
func (p plan) volumes() []corev1.Volume {
	all := []corev1.Volume{
		{Name: VolumeStatus, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
			Medium: corev1.StorageMediumMemory, SizeLimit: new(resource.MustParse("1Mi")),
		}}},
		{Name: VolumeToken, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: new(int32(worldReadable)),
			Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(tokenSeconds))}},
				{ConfigMap: &corev1.ConfigMapProjection{
					LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
					Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
				}},
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
					{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
				}}},
			},
		}}},
	}
	if len(p.gated) > 0 {
		// On disk: the wrapper is a program of some megabytes, and memory is the app's.
		all = append(all, corev1.Volume{Name: VolumeGate, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
			SizeLimit: new(resource.MustParse("16Mi")),
		}}})
	}
	return all
}
