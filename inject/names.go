package inject

// What elector writes into pods; other programs and the manager's controllers
// find injected pods by these names.
const (
	// Prefix is before every annotation and label of elector.
	Prefix = "elector.io/"
	// AnnotationStatus holds Status as JSON on injected pods.
	AnnotationStatus = Prefix + "status"
	// AnnotationCarried notes on a workload, as JSON, which annotations of its
	// pod template came from the workload and with which values.
	AnnotationCarried = Prefix + "carried"
	// LabelInjected is "true" on injected pods.
	LabelInjected = Prefix + "injected"
	// ContainerName is the sidecar's name, among the init containers.
	ContainerName = "elector"
	// VolumeStatus is the volume through which the sidecar tells the app.
	VolumeStatus = "elector-status"
	// VolumeToken is the volume with the sidecar's own ServiceAccount token.
	VolumeToken = "elector-token"
	// PortHealth is the name of the sidecar's declared port.
	PortHealth = "elector-health"
)
