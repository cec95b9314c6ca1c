package inject

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/elector-io/elector/elector"
)

// lockSuffix tells a ConfigMap that is a lock from one that the application has
// under its own name, which many do. Merged into the lock, it would be deleted
// with the leader.
const lockSuffix = "-lock"

// maxName is the length of an object's name.
const maxName = 253

// DefaultLock is the name of the workload's lock when nobody chose one.
func DefaultLock(workload string, mode elector.Mode) string {
	if mode == elector.ModeLeaderForLife {
		return workload + lockSuffix
	}
	return workload
}

// templateHashes are the labels that hold the suffix which a controller gave to
// its ReplicaSet: a Deployment's and an Argo Rollout's. Old and new pods of a
// rollout are candidates for the same lock only without it.
var templateHashes = []string{"pod-template-hash", "rollouts-pod-template-hash"}

var (
	replicaSet            = schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}
	statefulSet           = schema.GroupKind{Group: "apps", Kind: "StatefulSet"}
	daemonSet             = schema.GroupKind{Group: "apps", Kind: "DaemonSet"}
	job                   = schema.GroupKind{Group: "batch", Kind: "Job"}
	cronJob               = schema.GroupKind{Group: "batch", Kind: "CronJob"}
	jobSet                = schema.GroupKind{Group: "jobset.x-k8s.io", Kind: "JobSet"}
	replicationController = schema.GroupKind{Kind: "ReplicationController"}
	node                  = schema.GroupKind{Kind: "Node"} // of a mirror pod, which is refused for that
)

// workloadLabels name the workload on pods whose controller is one of several
// that belong to it: one for each version, or for each part. A label counts with
// that kind of controller only; elsewhere it is somebody's own.
var workloadLabels = []struct {
	controller schema.GroupKind
	label      string
}{
	{replicationController, "deploymentconfig"},       // OpenShift: web-1, web-2
	{replicaSet, "serving.knative.dev/service"},       // Knative: web-00001-deployment-HASH
	{replicaSet, "serving.knative.dev/configuration"}, // the same without a Service
	{job, "jobset.sigs.k8s.io/jobset-name"},           // JobSet: web-workers-0
	{statefulSet, "leaderworkerset.sigs.k8s.io/name"}, // LeaderWorkerSet: web, web-0
}

// spinnakers is how Spinnaker names the ReplicaSets that it makes, one for each
// deployment, without a label that says where the name ends.
var spinnakers = regexp.MustCompile(`-v[0-9]{3,}$`)

// workloadName is the name of the workload that a pod belongs to, as far as the
// pod tells.
//
// A ReplicaSet stands for its Deployment. A StatefulSet, a DaemonSet, a
// ReplicationController and a Job stand for themselves unless a label says more;
// a Job even if it ends in digits: a pod does not show whether a CronJob made its
// Job or a person who likes numbers. Workload knows, and sets elector.io/lock on
// the template of a CronJob. A pod without a controller has its own name, or the
// stem of its generated one.
//
// Of any other controller nobody here knows whether the next version of the
// workload will have the same name. Two versions with two locks would both have a
// leader, so there is an error, which says that the lock must be named. So it is
// with owners of which none is the controller: some operators mark none.
func workloadName(meta *metav1.ObjectMeta) (string, error) {
	owner := metav1.GetControllerOfNoCopy(meta)
	switch {
	case owner == nil && len(meta.OwnerReferences) > 0:
		return "", refusePod("the pod has an owner of kind %q and no controller, and other pods of that owner may have other names, so name the lock with %s",
			shorten(kindOf(&meta.OwnerReferences[0]).String()), Prefix+keyLock)
	case owner == nil && meta.Name != "":
		return meta.Name, nil
	case owner == nil:
		return strings.TrimRight(meta.GenerateName, "-"), nil
	}
	kind := kindOf(owner)
	for _, l := range workloadLabels {
		if name := meta.Labels[l.label]; kind == l.controller && name != "" {
			return name, nil
		}
	}
	switch kind {
	case statefulSet, daemonSet, job, replicationController, node:
		return owner.Name, nil
	case replicaSet:
	default:
		return "", refusePod("a controller of kind %q made the pod, and the next version of its workload may have another name, so name the lock with %s",
			shorten(kind.String()), Prefix+keyLock)
	}
	for _, label := range templateHashes {
		if name, ok := strings.CutSuffix(owner.Name, "-"+meta.Labels[label]); ok {
			return name, nil
		}
	}
	if spinnakers.MatchString(owner.Name) {
		return "", refusePod("the name of the ReplicaSet %q is that of one version of the workload, so name the lock with %s", shorten(owner.Name), Prefix+keyLock)
	}
	return owner.Name, nil
}

func kindOf(owner *metav1.OwnerReference) schema.GroupKind {
	group, _, _ := strings.Cut(owner.APIVersion, "/")
	if group == owner.APIVersion { // v1
		group = ""
	}
	return schema.GroupKind{Group: group, Kind: owner.Kind}
}

// checkMaker refuses a Job whose controller may make others of other names, which
// its pods could not tell from a Job of its own.
func checkMaker(meta *metav1.ObjectMeta, template map[string]string) error {
	owner := metav1.GetControllerOfNoCopy(meta)
	if _, chosen := template[Prefix+keyLock]; chosen || owner == nil || kindOf(owner) == cronJob || kindOf(owner) == jobSet {
		return nil
	}
	if wanted, err := asks(template); err != nil || !wanted {
		return err
	}
	return refusePod("a controller of kind %q made the Job, and the next one may have another name, so name the lock with %s", shorten(kindOf(owner).String()), Prefix+keyLock)
}

// lockOf returns the name that the annotations choose, else the given one, and
// if that is empty the one that follows from the workload's name and the mode.
func lockOf(meta *metav1.ObjectMeta, lock string, opts Options) (string, error) {
	if chosen, ok := meta.Annotations[Prefix+keyLock]; ok {
		return chosen, nil
	}
	if lock != "" {
		return lock, nil
	}
	workload, err := workloadName(meta)
	if err != nil {
		return "", err
	}
	lock = DefaultLock(workload, modeOf(meta.Annotations, opts))
	if len(lock) > maxName {
		return "", refusePod("after its workload the lock would have a name of %d characters, of which %d are allowed, so name the lock with %s", len(lock), maxName, Prefix+keyLock)
	}
	return lock, nil
}

// jobOfCronJob is how a CronJob names its Jobs: for the minute they are due.
var jobOfCronJob = regexp.MustCompile(`^(.+)-[0-9]{8,}$`)

// chosenBy tells whether somebody chose the lock's name. On the template of a
// CronJob it was Workload that wrote it.
func chosenBy(meta *metav1.ObjectMeta, mode elector.Mode) string {
	lock, chosen := meta.Annotations[Prefix+keyLock]
	if !chosen {
		return LockByDefault
	}
	if owner := metav1.GetControllerOfNoCopy(meta); owner != nil && owner.Kind == job.Kind {
		if m := jobOfCronJob.FindStringSubmatch(owner.Name); m != nil && lock == DefaultLock(m[1], mode) {
			return LockByDefault
		}
	}
	return LockByAnnotation
}

// serviceAccount is the account that will be granted the lock.
func serviceAccount(spec *corev1.PodSpec) string {
	switch {
	case spec.ServiceAccountName != "":
		return spec.ServiceAccountName
	case spec.DeprecatedServiceAccount != "":
		return spec.DeprecatedServiceAccount
	}
	return "default"
}
