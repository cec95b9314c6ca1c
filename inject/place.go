package inject

import (
	"path"

	corev1 "k8s.io/api/core/v1"
)

// checkPlace refuses a status directory that the container could not see, or that
// would keep it from starting.
func checkPlace(c *corev1.Container, p plan, volumes []corev1.Volume) error {
	dir := resolved(p.statusDir)
	for _, m := range c.VolumeMounts {
		if p.isStatusMount(m) {
			continue
		}
		at := resolved(m.MountPath)
		// A mount below a read-only one has nowhere to be. Of the same volume there may
		// be one more by /var/run's other name.
		if within(at, dir) && (m.Name != VolumeStatus || within(path.Clean(m.MountPath), p.statusDir)) {
			return refuse(keyStatusDir, p.statusDir, "container %q mounts volume %q at %q, choose another path", shorten(c.Name), shorten(m.Name), shorten(m.MountPath))
		}
		if within(dir, at) && at != dir && readOnly(m, volumes) {
			return refuse(keyStatusDir, p.statusDir, "container %q mounts volume %q read-only at %q, where no directory can be made, choose another path",
				shorten(c.Name), shorten(m.Name), shorten(m.MountPath))
		}
	}
	for _, d := range c.VolumeDevices {
		if within(resolved(d.DevicePath), dir) {
			return refuse(keyStatusDir, p.statusDir, "container %q has device %q at %q, choose another path", shorten(c.Name), shorten(d.Name), shorten(d.DevicePath))
		}
	}
	return nil
}

// resolved returns where a mount will be: below the root, and below /run what is
// below /var/run, which is a link to it in most images. Where it is none, somebody
// is asked for another path without need, which is better than a pod that never
// starts.
func resolved(dir string) string {
	dir = path.Clean("/" + dir)
	if within(dir, "/var/run") {
		return path.Clean("/run" + dir[len("/var/run"):])
	}
	return dir
}

// readOnly reports whether the kubelet mounts it read-only. It does so with the
// volumes that it writes itself, whatever the mount says.
func readOnly(m corev1.VolumeMount, volumes []corev1.Volume) bool {
	if m.ReadOnly {
		return true
	}
	for i := range volumes {
		if v := &volumes[i]; v.Name == m.Name {
			return v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil || v.Image != nil ||
				v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly ||
				v.CSI != nil && v.CSI.ReadOnly != nil && *v.CSI.ReadOnly ||
				v.NFS != nil && v.NFS.ReadOnly
		}
	}
	return false
}
