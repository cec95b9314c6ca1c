package inject

// What elector writes into pods and workloads; the manager's controllers find
// injected pods by these names.
const (
	// Prefix is before every annotation and label of elector.
	Prefix = "elector.io/"
	// AnnotationEnabled asks for the sidecar, with the value "true".
	AnnotationEnabled = Prefix + keyEnabled
	// AnnotationAdopt on a Lease or ConfigMap, with the value "true", says that
	// elector may use it although it did not make it.
	AnnotationAdopt = Prefix + "adopt"
	// AnnotationStatus holds Status as JSON on injected pods.
	AnnotationStatus = Prefix + "status"
	// AnnotationContainers names the app's containers, separated by commas.
	AnnotationContainers = Prefix + keyContainers
	// AnnotationCarried notes on a workload which annotations of its pod template
	// came from the workload, as a JSON object of their values.
	AnnotationCarried = Prefix + "carried"
	// LabelInjected is "true" on injected pods.
	LabelInjected = Prefix + "injected"
	// LabelRole is elector.RoleLeader or RoleStandby on injected pods. They begin as
	// standbys, whatever their template says; the manager keeps it right.
	LabelRole = Prefix + "role"
	// ContainerName is the sidecar's name, among the init containers.
	ContainerName = "elector"
	// VolumeStatus is the volume through which the sidecar tells the app.
	VolumeStatus = "elector-status"
	// VolumeToken is the volume with the sidecar's own ServiceAccount token.
	VolumeToken = "elector-token"
	// PortHealth is the name of the port for the kubelet, Prometheus and load
	// balancers.
	PortHealth = "elector-health"
	// PortHTTP is the name of the app's port; it is declared with hostNetwork
	// only, where the scheduler has to know.
	PortHTTP = "elector-http"
)

// statusDir is where the status volume is mounted in the sidecar, and in the
// app unless elector.io/status-dir says otherwise.
const statusDir = "/var/run/elector"

const (
	defaultPort       = 4040
	defaultHealthPort = 4041
)
