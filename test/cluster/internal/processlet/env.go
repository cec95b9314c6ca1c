package processlet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// variables is an environment that remembers the order in which names first appeared.
type variables struct {
	names  []string
	values map[string]string
}

func (v *variables) set(name, value string) {
	if _, ok := v.values[name]; !ok {
		v.names = append(v.names, name)
	}
	v.values[name] = value
}

// environment resolves everything a container's environment is made of. Service variables other than the API server's are not made.
func (p *pod) environment(ctx context.Context, obj *v1.Pod, c *v1.Container) (*variables, error) {
	host, port := p.link.Addr().Addr().String(), strconv.Itoa(int(p.link.Addr().Port()))
	vars := &variables{values: map[string]string{}}
	for _, kv := range [][2]string{{"PATH", defaultPath}, {"HOSTNAME", hostname(obj)}, {"HOME", "/"},
		{"KUBERNETES_SERVICE_HOST", host}, {"KUBERNETES_SERVICE_PORT", port}, {"KUBERNETES_SERVICE_PORT_HTTPS", port}} {
		vars.set(kv[0], kv[1])
	}
	for _, from := range c.EnvFrom {
		data, err := p.envSource(ctx, obj.Namespace, from)
		if err != nil {
			return nil, err
		}
		for _, key := range sortedKeys(data) {
			vars.set(from.Prefix+key, data[key])
		}
	}
	for _, e := range c.Env {
		value, present, err := p.envValue(ctx, obj, c, e, vars)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", e.Name, err)
		}
		if present {
			vars.set(e.Name, value)
		}
	}
	return vars, nil
}

// list is the environment for the process, with addresses rewritten.
func (p *pod) list(vars *variables) []string {
	env := make([]string, 0, len(vars.names))
	for _, name := range vars.names {
		env = append(env, name+"="+rewriteAddresses(vars.values[name], p.wire))
	}
	return env
}

// expandAll resolves $(NAME) in command words and makes their addresses the pod's own.
func (p *pod) expandAll(words []string, vars *variables) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = rewriteAddresses(expand(w, vars.values), p.wire)
	}
	return out
}

func (p *pod) envSource(ctx context.Context, namespace string, from v1.EnvFromSource) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		return p.configMap(ctx, namespace, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
	case from.SecretRef != nil:
		return p.secret(ctx, namespace, from.SecretRef.Name, from.SecretRef.Optional)
	}
	return nil, nil
}

func (p *pod) envValue(ctx context.Context, obj *v1.Pod, c *v1.Container, e v1.EnvVar, vars *variables) (value string, present bool, err error) {
	from := e.ValueFrom
	switch {
	case from == nil:
		return expand(e.Value, vars.values), true, nil
	case from.FieldRef != nil:
		value, err = p.field(obj, from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = resourceField(obj, c, from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		data, err := p.configMap(ctx, obj.Namespace, ref.Name, ref.Optional)
		return pick(data, ref.Key, ref.Optional, err)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		data, err := p.secret(ctx, obj.Namespace, ref.Name, ref.Optional)
		return pick(data, ref.Key, ref.Optional, err)
	}
	return "", false, fmt.Errorf("this kind of source: %w", errUnsupported)
}

func pick(data map[string]string, key string, optional *bool, err error) (string, bool, error) {
	if err != nil {
		return "", false, err
	}
	value, ok := data[key]
	if !ok && !isTrue(optional) {
		return "", false, fmt.Errorf("key %q: %w", key, ErrNotFound)
	}
	return value, ok, nil
}

// configMap reads all of a ConfigMap as strings. An optional one may be missing.
func (p *pod) configMap(ctx context.Context, namespace, name string, optional *bool) (map[string]string, error) {
	cm, err := p.let.cfg.Client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && isTrue(optional) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configmap %q: %w", name, err)
	}
	data := map[string]string{}
	maps.Copy(data, cm.Data)
	for key, value := range cm.BinaryData {
		data[key] = string(value)
	}
	return data, nil
}

// secret reads all of a Secret as strings. An optional one may be missing.
func (p *pod) secret(ctx context.Context, namespace, name string, optional *bool) (map[string]string, error) {
	s, err := p.let.cfg.Client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && isTrue(optional) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", name, err)
	}
	data := map[string]string{}
	for key, value := range s.Data {
		data[key] = string(value)
	}
	return data, nil
}

// field resolves a downward API path. Where the API reports an address at which nothing can listen, the process is told the one at which it can.
func (p *pod) field(obj *v1.Pod, path string) (string, error) {
	if of, key, ok := subscript(path); ok {
		switch of {
		case "metadata.labels":
			return obj.Labels[key], nil
		case "metadata.annotations":
			return obj.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return obj.Name, nil
	case "metadata.namespace":
		return obj.Namespace, nil
	case "metadata.uid":
		return string(obj.UID), nil
	case "metadata.labels":
		return formatMap(obj.Labels), nil
	case "metadata.annotations":
		return formatMap(obj.Annotations), nil
	case "spec.nodeName":
		return obj.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return obj.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return p.wire.String(), nil
	case "status.hostIP", "status.hostIPs":
		return p.node.Kubelet.Addr().String(), nil
	}
	return "", fmt.Errorf("field path %q is not played by the processlet", path)
}

// subscript splits metadata.labels['key'].
func subscript(path string) (of, key string, ok bool) {
	of, rest, ok := strings.Cut(path, "['")
	if !ok {
		return "", "", false
	}
	key, ok = strings.CutSuffix(rest, "']")
	return of, key, ok
}

// formatMap writes labels or annotations as the downward API does: one key="escaped value" per line.
func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for _, key := range sortedKeys(m) {
		lines = append(lines, key+"="+strconv.Quote(m[key]))
	}
	return strings.Join(lines, "\n")
}

// resourceField resolves requests and limits. A limit that is not set is the node's: here 0 would be a lie and the machine's size a surprise, so the request counts.
func resourceField(obj *v1.Pod, c *v1.Container, ref *v1.ResourceFieldSelector) (string, error) {
	containers := slices.Concat(obj.Spec.InitContainers, obj.Spec.Containers)
	if i := slices.IndexFunc(containers, func(o v1.Container) bool { return o.Name == ref.ContainerName }); i >= 0 {
		c = &containers[i]
	}
	kind, name, ok := strings.Cut(ref.Resource, ".")
	if !ok {
		return "", fmt.Errorf("resource %q is not known", ref.Resource)
	}
	quantity := c.Resources.Requests[v1.ResourceName(name)]
	if limit, ok := c.Resources.Limits[v1.ResourceName(name)]; ok && kind == "limits" {
		quantity = limit
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == string(v1.ResourceCPU) {
		return strconv.FormatInt(ceilDiv(quantity.MilliValue(), divisor.MilliValue()), 10), nil
	}
	return strconv.FormatInt(ceilDiv(quantity.Value(), divisor.Value()), 10), nil
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// expand resolves $(NAME) from what is defined so far. $$ stands for $, and what is not defined stays as it is.
func expand(s string, values map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			reference := s[i : i+end+1]
			if value, ok := values[reference[2:len(reference)-1]]; ok {
				b.WriteString(value)
			} else {
				b.WriteString(reference)
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// hostname is what the pod's processes see as the machine's name.
func hostname(obj *v1.Pod) string {
	name := obj.Name
	if obj.Spec.Hostname != "" {
		name = obj.Spec.Hostname
	}
	return name[:min(len(name), 63)]
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

func isTrue(b *bool) bool { return b != nil && *b }
