package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"gomodules.xyz/jsonpatch/v2"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/elector-io/elector/cmd/internal/object"
	"github.com/elector-io/elector/cmd/internal/rights"
	"github.com/elector-io/elector/cmd/kubectl-elector/internal/manifest"
	"github.com/elector-io/elector/inject"
)

// sidecarRepository is where the chart takes the sidecar's image from.
const sidecarRepository = "ghcr.io/elector-io/elector"

// releases are the versions of which there is an image.
var releases = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)\.[0-9]+)?$`)

// sidecarImage is the image that belongs to this program, empty if there is none.
func sidecarImage(version string) string {
	if !releases.MatchString(version) {
		return ""
	}
	return sidecarRepository + ":" + version
}

func newInject(p *plugin) *cobra.Command {
	var (
		files   files
		rbac    bool
		options = inject.Options{Version: version}
	)
	c := &cobra.Command{
		Use:   "inject -f FILE [flags]",
		Short: "Put the sidecar into manifests, as the webhook does",
		Long: `Put the sidecar into manifests, as the webhook does.

For clusters without elector's webhook, and where what is applied has to be what
was reviewed. It reads pods, and Deployments, StatefulSets, DaemonSets, ReplicaSets,
ReplicationControllers, Jobs and CronJobs, of which it changes the pod template,
and asks no cluster anything. Who wants a sidecar says so as everywhere, by the
annotation elector.io/enabled: "true" on the workload or on its pod template;
all other annotations count, too. Everything else goes through as it is.

The settings that nobody chose are those of elector's chart as it is shipped. A
file that was injected before stays as it is: "uninject" first to get another sidecar.
Where the webhook is it leaves such workloads and their pods alone.

Without the manager the pods have no right to their lock, so --rbac adds a Role
and a RoleBinding for each. Nobody labels the leader then, hands over from
a leader that is not fit, or frees the lock of mode leader-for-life whose pod has
failed but was not deleted.

Names have to be final: a workload that is renamed afterwards, as by a name prefix
of kustomize, keeps the lock it has here.`,
		Example: `  # Apply a workload with its sidecar and its rights
  kubectl elector inject -f web.yaml --rbac | kubectl apply -f -

  # See what the webhook would add
  kubectl elector inject -f web.yaml | diff web.yaml -

  # As the last step of others
  helm template web ./web | kubectl elector inject -n shop --rbac -f - > web.yaml`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if options.Image == "" {
				return usagef("this program has no version of a release (%s) and so no image of its own, name the sidecar's with --image", version)
			}
			if err := options.Validate(); err != nil {
				return usageError{err}
			}
			return p.inject(&files, options, rbac)
		},
	}
	files.addFlags(c)
	c.Flags().StringVar(&options.Image, "image", sidecarImage(version), "the sidecar's image; an annotation elector.io/image goes first")
	c.Flags().StringVar((*string)(&options.ImagePullPolicy), "image-pull-policy", "", "Always, IfNotPresent or Never (default: the API server's choice)")
	c.Flags().BoolVar(&rbac, "rbac", false, "also print the Role and RoleBinding of each lock, which the manager would make; objects without a namespace are taken to be for that of -n, or of the context")
	return c
}

func (p *plugin) inject(files *files, options inject.Options, rbac bool) error {
	all, err := files.read(p.IOStreams)
	if err != nil {
		return err
	}
	namespace := ""
	if rbac {
		if namespace, _, err = p.flags.ToRawKubeConfigLoader().Namespace(); err != nil {
			return fmt.Errorf("reading the kubeconfig: %w", err)
		}
	}
	var grants grants
	out, err := change(all, func(o manifest.Object) ([]jsonpatch.Operation, error) {
		before, after, warnings, err := injected(o, options)
		if err != nil || before == nil {
			return nil, err
		}
		for _, w := range warnings {
			p.warn("%s: %s", o.Where, w)
		}
		if o.Namespace == "" {
			o.Namespace = namespace
		}
		grants.add(o.Namespace, after)
		return object.Patch(o.Raw, before, after)
	})
	if err != nil {
		return err
	}
	if rbac {
		if err := grants.write(out); err != nil {
			return err
		}
	}
	_, err = out.WriteTo(p.Out)
	return err
}

// injected returns the object before and after. Both are nil if it is none that has
// pods, or says nothing about elector.
func injected(o manifest.Object, options inject.Options) (before, after runtime.Object, warnings []string, err error) {
	if !mentions(o.Raw) {
		return nil, nil, nil, nil
	}
	before, err = read(o)
	switch {
	case err != nil:
		return nil, nil, nil, err
	case before == nil:
		return nil, nil, nil, refuse(o)
	}
	if pod, ok := before.(*corev1.Pod); ok {
		after, err = inject.Pod(pod, options)
		return before, after, inject.Warnings(pod, options), err
	}
	if o.Name == "" && namesLock(before, options) {
		return nil, nil, nil, fmt.Errorf("the name of this %s is generated when it is made, and so is that of its lock: name the lock with the annotation %slock", o.Kind, inject.Prefix)
	}
	after, warnings, err = inject.Template(before, options)
	return before, after, warnings, err
}

// namesLock reports whether the lock of a workload without a name would be called
// after it. The API server chooses the name, and another for the next that is made.
func namesLock(workload runtime.Object, options inject.Options) bool {
	workload = workload.DeepCopyObject()
	workload.(metav1.Object).SetName("name")
	injected, _, err := inject.Template(workload, options)
	if err != nil {
		return false // which is said of the workload as it is
	}
	lock, _, ok := inject.LockOf(injected)
	return ok && lock.LockBy == inject.LockByDefault
}

// kinds are those that have pods.
var kinds = map[metav1.GroupVersionKind]func() runtime.Object{
	{Version: "v1", Kind: "Pod"}:                        func() runtime.Object { return &corev1.Pod{} },
	{Version: "v1", Kind: "ReplicationController"}:      func() runtime.Object { return &corev1.ReplicationController{} },
	{Group: "apps", Version: "v1", Kind: "Deployment"}:  func() runtime.Object { return &appsv1.Deployment{} },
	{Group: "apps", Version: "v1", Kind: "StatefulSet"}: func() runtime.Object { return &appsv1.StatefulSet{} },
	{Group: "apps", Version: "v1", Kind: "DaemonSet"}:   func() runtime.Object { return &appsv1.DaemonSet{} },
	{Group: "apps", Version: "v1", Kind: "ReplicaSet"}:  func() runtime.Object { return &appsv1.ReplicaSet{} },
	{Group: "batch", Version: "v1", Kind: "Job"}:        func() runtime.Object { return &batchv1.Job{} },
	{Group: "batch", Version: "v1", Kind: "CronJob"}:    func() runtime.Object { return &batchv1.CronJob{} },
}

// read returns the object as one of the known kinds, or nil if it is of another.
func read(o manifest.Object) (runtime.Object, error) {
	kind := kindOf(o)
	empty, ok := kinds[kind]
	if !ok {
		return nil, nil
	}
	typed := empty()
	if _, err := object.Decode(o.Raw, kind, typed); err != nil {
		return nil, fmt.Errorf("reading the object: %w", err)
	}
	return typed, nil
}

func kindOf(o manifest.Object) metav1.GroupVersionKind {
	group, version, ok := strings.Cut(o.APIVersion, "/")
	if !ok {
		group, version = "", o.APIVersion
	}
	return metav1.GroupVersionKind{Group: group, Version: version, Kind: o.Kind}
}

// mentions reports whether an object may say something about elector. In JSON every
// letter may be written as an escape.
func mentions(raw []byte) bool {
	if bytes.Contains(raw, []byte(`\u`)) {
		var content any
		if json.Unmarshal(raw, &content) == nil {
			if text, err := json.Marshal(content); err == nil {
				raw = text
			}
		}
	}
	return bytes.Contains(raw, []byte("elector"))
}

// refuse says why an object of another kind cannot ask for a sidecar here: who asked
// would find none.
func refuse(o manifest.Object) error {
	var content map[string]any
	if err := json.Unmarshal(o.Raw, &content); err != nil {
		return fmt.Errorf("reading the object: %w", err)
	}
	itself := asks(content)
	delete(content, "metadata")
	template, pods := inside(content)
	switch {
	case template:
		return fmt.Errorf("pods of a %s can be injected by the webhook only, when they are made: remove %s from its pod template, or leave it to the webhook", object.Shown(kindOf(o)), inject.AnnotationEnabled)
	case itself && pods:
		return fmt.Errorf("of a %s nobody looks at the annotation %s on itself, the webhook neither: write it into its pod template, and leave it to the webhook", object.Shown(kindOf(o)), inject.AnnotationEnabled)
	}
	return nil
}

// inside looks through an object of any kind: whether a part of it, such as a pod
// template, asks for a sidecar, and whether there are containers.
func inside(part any) (template, pods bool) {
	all := func(parts iter.Seq[any]) {
		for part := range parts {
			t, p := inside(part)
			template, pods = template || t, pods || p
		}
	}
	switch part := part.(type) {
	case []any:
		all(slices.Values(part))
	case map[string]any:
		all(maps.Values(part))
		_, containers := part["containers"].([]any)
		template, pods = template || asks(part), pods || containers
	}
	return template, pods
}

// asks reports whether the annotations of a part say so.
func asks(part map[string]any) bool {
	metadata, _ := part["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	return annotations[inject.AnnotationEnabled] == "true"
}

// grants are the rights of those who were injected, each once, in the order of
// the files.
type grants struct {
	known map[string]bool
	all   []runtime.Object
}

// add adds what the pods of an object need, if they have a sidecar.
func (g *grants) add(namespace string, of runtime.Object) {
	lock, account, ok := inject.LockOf(of)
	if !ok {
		return
	}
	role := rights.Role(lock.Mode, namespace, lock.Lock)
	binding := rights.Binding(role, account)
	for _, o := range []metav1.Object{role, binding} {
		if key := namespace + "/" + o.GetName(); !g.known[key] {
			if g.known == nil {
				g.known = map[string]bool{}
			}
			g.known[key] = true
			g.all = append(g.all, o.(runtime.Object))
		}
	}
}

func (g *grants) write(b *bytes.Buffer) error {
	for _, o := range g.all {
		text, err := yaml.Marshal(o)
		if err != nil {
			return fmt.Errorf("writing the rights: %w", err)
		}
		appendDocument(b, text)
	}
	return nil
}

func newUninject(p *plugin) *cobra.Command {
	var (
		files files
		rbac  bool
	)
	c := &cobra.Command{
		Use:   "uninject -f FILE [flags]",
		Short: "Take the sidecar out of manifests again",
		Long: `Take the sidecar out of manifests again, whether "inject" put it there or the webhook.

The annotations that ask for it stay, so "inject" puts it back. What was never injected
goes through as it is.`,
		Example: `  # Get the sidecar of this version
  kubectl elector uninject -f web.yaml | kubectl elector inject -f - > new.yaml

  # A pod's manifest from a cluster, as it was before admission
  kubectl get pod web-0 -o yaml | kubectl elector uninject -f -`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return p.uninject(&files, rbac) },
	}
	files.addFlags(c)
	c.Flags().BoolVar(&rbac, "rbac", false, "also leave out Roles and RoleBindings that are just as elector makes them")
	return c
}

func (p *plugin) uninject(files *files, rbac bool) error {
	all, err := files.read(p.IOStreams)
	if err != nil {
		return err
	}
	out, err := change(all, func(o manifest.Object) ([]jsonpatch.Operation, error) {
		switch {
		case !mentions(o.Raw):
			return nil, nil
		case rbac && isGrant(o):
			return nil, manifest.ErrLeaveOut
		}
		before, err := read(o)
		if err != nil || before == nil {
			return nil, err
		}
		after, err := inject.Undo(before)
		if err != nil {
			return nil, err
		}
		return object.Reduce(o.Raw, before, after)
	})
	if err != nil {
		return err
	}
	_, err = out.WriteTo(p.Out)
	return err
}

// isGrant reports whether the object is what its name says.
func isGrant(o manifest.Object) bool {
	mode, lock, ok := rights.Lock(o.Name)
	if !ok || o.APIVersion != rbacv1.SchemeGroupVersion.String() {
		return false
	}
	role := rights.Role(mode, o.Namespace, lock)
	var have, want any = &rbacv1.Role{}, role
	if o.Kind == "RoleBinding" {
		have, want = &rbacv1.RoleBinding{}, rights.Binding(role, strings.TrimPrefix(o.Name, role.Name+":"))
	}
	return json.Unmarshal(o.Raw, have) == nil && equality.Semantic.DeepEqual(have, want)
}
