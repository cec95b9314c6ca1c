package inject

import (
	"path"
	"strings"

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
		// The link from /var/run is not in a volume that is mounted at /var.
		if (below(dir, at) || below(p.statusDir, rooted(m.MountPath))) && readOnly(m, volumes) {
			return refuse(keyStatusDir, p.statusDir, "container %q mounts volume %q read-only at %q, where no directory can be made, choose another path",
				shorten(c.Name), shorten(m.Name), shorten(m.MountPath))
		}
	}
	message := c.TerminationMessagePath
	if message == "" {
		message = corev1.TerminationMessagePathDefault
	}
	if file := resolved(message); within(file, dir) || within(dir, file) {
		return refuse(keyStatusDir, p.statusDir, "container %q has its termination message at %q, choose another path", shorten(c.Name), shorten(message))
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
	dir = rooted(dir)
	if within(dir, "/var/run") {
		return "/run" + dir[len("/var/run"):]
	}
	return dir
}

// rooted is the clean path of dir below the root.
func rooted(dir string) string {
	if !strings.HasPrefix(dir, "/") {
		dir = "/" + dir
	}
	return path.Clean(dir)
}

// readOnly reports whether the kubelet mounts it read-only. It does so with the
// volumes that it writes itself, whatever the mount says.
func readOnly(m corev1.VolumeMount, volumes []corev1.Volume) bool {
	if m.ReadOnly {
		return true
	}
	for i := range volumes {
		if volumes[i].Name == m.Name {
			return readOnlySource(&volumes[i].VolumeSource)
		}
	}
	return false
}

func readOnlySource(v *corev1.VolumeSource) bool {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ReadOnly
	case v.CSI != nil:
		return v.CSI.ReadOnly != nil && *v.CSI.ReadOnly
	case v.NFS != nil:
		return v.NFS.ReadOnly
	case v.ISCSI != nil:
		return v.ISCSI.ReadOnly
	case v.FC != nil:
		return v.FC.ReadOnly
	case v.RBD != nil:
		return v.RBD.ReadOnly
	case v.CephFS != nil:
		return v.CephFS.ReadOnly
	case v.Cinder != nil:
		return v.Cinder.ReadOnly
	case v.Glusterfs != nil:
		return v.Glusterfs.ReadOnly
	case v.Quobyte != nil:
		return v.Quobyte.ReadOnly
	case v.FlexVolume != nil:
		return v.FlexVolume.ReadOnly
	case v.AzureFile != nil:
		return v.AzureFile.ReadOnly
	case v.AzureDisk != nil:
		return v.AzureDisk.ReadOnly != nil && *v.AzureDisk.ReadOnly
	case v.AWSElasticBlockStore != nil:
		return v.AWSElasticBlockStore.ReadOnly
	case v.GCEPersistentDisk != nil:
		return v.GCEPersistentDisk.ReadOnly
	case v.PortworxVolume != nil:
		return v.PortworxVolume.ReadOnly
	case v.ScaleIO != nil:
		return v.ScaleIO.ReadOnly
	case v.StorageOS != nil:
		return v.StorageOS.ReadOnly
	}
	return v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil || v.Image != nil
}
