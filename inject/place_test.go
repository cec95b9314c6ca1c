package inject

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestReadOnlyAbove(t *testing.T) {
	tests := map[string]struct {
		reason string
		source corev1.VolumeSource
		mount  corev1.VolumeMount
		denied bool
	}{
		"written by the kubelet at /var": {"it has no /var/run", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}, corev1.VolumeMount{MountPath: "/var"}, true},
		"read-only at /var":              {"nothing can be made in it", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, corev1.VolumeMount{MountPath: "var/", ReadOnly: true}, true},
		"writable at /var":               {"the runtime makes the directory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, corev1.VolumeMount{MountPath: "/var"}, false},
		"read-only beside":               {"it is not above", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, corev1.VolumeMount{MountPath: "/var/lib", ReadOnly: true}, false},
		"claim":                          {"the kubelet mounts it read-only", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ReadOnly: true}}, corev1.VolumeMount{MountPath: "/var"}, true},
		"iSCSI":                          {"likewise", corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{ReadOnly: true}}, corev1.VolumeMount{MountPath: "/var/run"}, true},
		"writable iSCSI":                 {"it is not read-only", corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{}}, corev1.VolumeMount{MountPath: "/var/run"}, false},
		"Azure disk":                     {"likewise", corev1.VolumeSource{AzureDisk: &corev1.AzureDiskVolumeSource{ReadOnly: new(true)}}, corev1.VolumeMount{MountPath: "/run"}, true},
		"Fibre Channel":                  {"likewise", corev1.VolumeSource{FC: &corev1.FCVolumeSource{ReadOnly: true}}, corev1.VolumeMount{MountPath: "/run"}, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pod := electedPod()
			tc.mount.Name = "data"
			pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: tc.source}}
			pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{tc.mount}
			_, err := Pod(pod, options)
			if denied := err != nil && strings.Contains(err.Error(), "where no directory can be made"); denied != tc.denied || err != nil && !denied {
				t.Errorf("%s: got %v", tc.reason, err)
			}
		})
	}
}

func TestStatusDirOfOthers(t *testing.T) {
	tests := map[string]struct {
		reason string
		dir    string
		why    string
	}{
		"devices":        {"the container has none left", "/dev", "which every container has"},
		"device":         {"the runtime makes another", "/dev/null", "which every container has"},
		"shared memory":  {"the app writes there", "/dev/shm/", "which every container has"},
		"in the memory":  {"it is a file system", "/dev/shm/elector", ""},
		"above hosts":    {"the kubelet's files have nowhere to be", "/etc", "which every container has"},
		"hosts":          {"it is a file", "/etc/hosts", "which every container has"},
		"below a file":   {"it is no directory", "/etc/resolv.conf/elector", "which every container has"},
		"beside hosts":   {"nothing is there", "/etc/elector", ""},
		"named like it":  {"nothing is there", "/device", ""},
		"termination":    {"it is a file", "/var/log/end", `has its termination message at "/var/log/end"`},
		"above the end":  {"it is read-only for the app", "/var/log", `has its termination message at "/var/log/end"`},
		"beside the end": {"nothing is there", "/var/log/elector", ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pod := electedPod(keyStatusDir, tc.dir)
			pod.Spec.Containers[0].TerminationMessagePath = "/var/log/end"
			_, err := Pod(pod, options)
			if (err == nil) != (tc.why == "") || err != nil && !strings.Contains(err.Error(), tc.why) {
				t.Errorf("%s: got %v, want %q", tc.reason, err, tc.why)
			}
		})
	}
}
