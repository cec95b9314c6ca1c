package processlet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	authentication "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/test/cluster/internal/sandbox"
)

// tokenRetry is how soon a token that could not be refreshed is asked for again.
const tokenRetry = 10 * time.Second

// errUnsupported marks what will not work later either.
var errUnsupported = errors.New("not played by the processlet")

// volumes are the directories behind a pod's volumes, and the tokens in them that expire.
type volumes struct {
	paths  map[string]string
	tokens []token
	// live are the files that follow the pod's labels and annotations.
	live []liveFile
}

type token struct {
	path   string
	source *v1.ServiceAccountTokenProjection
	renew  time.Time
}

type liveFile struct {
	path, field string
}

// makeVolumes fills all volumes of a pod. Only tokens and downward API files change later; a ConfigMap or Secret stays as it was found.
func (p *pod) makeVolumes(ctx context.Context, obj *v1.Pod) (*volumes, error) {
	vs := &volumes{paths: map[string]string{}}
	for i := range obj.Spec.Volumes {
		v := &obj.Spec.Volumes[i]
		dir := filepath.Join(p.dir, "volumes", v.Name)
		vs.paths[v.Name] = dir
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		if err := p.fillVolume(ctx, obj, v, dir, vs); err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return vs, nil
}

func (p *pod) fillVolume(ctx context.Context, obj *v1.Pod, v *v1.Volume, dir string, vs *volumes) error {
	switch {
	case v.EmptyDir != nil:
		return os.Chmod(dir, 0o777)
	case v.ConfigMap != nil:
		return p.fillConfigMap(ctx, obj.Namespace, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional, v.ConfigMap.DefaultMode, dir)
	case v.Secret != nil:
		return p.fillSecret(ctx, obj.Namespace, v.Secret.SecretName, v.Secret.Items, v.Secret.Optional, v.Secret.DefaultMode, dir)
	case v.DownwardAPI != nil:
		return p.fillDownward(obj, v.DownwardAPI.Items, dir, vs)
	case v.Projected != nil:
		return p.fillProjected(ctx, obj, v.Projected, dir, vs)
	case v.HostPath != nil:
		vs.paths[v.Name] = v.HostPath.Path
		if _, err := os.Stat(v.HostPath.Path); err != nil {
			return fmt.Errorf("host path: %w", err)
		}
		return nil
	}
	return fmt.Errorf("this kind of volume: %w", errUnsupported)
}

func (p *pod) fillProjected(ctx context.Context, obj *v1.Pod, projected *v1.ProjectedVolumeSource, dir string, vs *volumes) error {
	for _, source := range projected.Sources {
		var err error
		switch {
		case source.ServiceAccountToken != nil:
			t := token{path: filepath.Join(dir, source.ServiceAccountToken.Path), source: source.ServiceAccountToken}
			if err = p.refresh(ctx, obj, &t); err == nil {
				vs.tokens = append(vs.tokens, t)
			}
		case source.ConfigMap != nil:
			err = p.fillConfigMap(ctx, obj.Namespace, source.ConfigMap.Name, source.ConfigMap.Items, source.ConfigMap.Optional, projected.DefaultMode, dir)
		case source.Secret != nil:
			err = p.fillSecret(ctx, obj.Namespace, source.Secret.Name, source.Secret.Items, source.Secret.Optional, projected.DefaultMode, dir)
		case source.DownwardAPI != nil:
			err = p.fillDownward(obj, source.DownwardAPI.Items, dir, vs)
		default:
			err = fmt.Errorf("this kind of projection: %w", errUnsupported)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pod) fillConfigMap(ctx context.Context, namespace, name string, items []v1.KeyToPath, optional *bool, mode *int32, dir string) error {
	data, err := p.configMap(ctx, namespace, name, optional)
	if err != nil {
		return err
	}
	return writeItems(data, items, optional, mode, dir)
}

func (p *pod) fillSecret(ctx context.Context, namespace, name string, items []v1.KeyToPath, optional *bool, mode *int32, dir string) error {
	data, err := p.secret(ctx, namespace, name, optional)
	if err != nil {
		return err
	}
	return writeItems(data, items, optional, mode, dir)
}

// writeItems writes the chosen keys, or all when none is chosen.
func writeItems(data map[string]string, items []v1.KeyToPath, optional *bool, mode *int32, dir string) error {
	if items == nil {
		for key := range data {
			items = append(items, v1.KeyToPath{Key: key, Path: key})
		}
	}
	for _, item := range items {
		content, ok := data[item.Key]
		if !ok && isTrue(optional) {
			continue
		}
		if !ok {
			return fmt.Errorf("key %q: %w", item.Key, ErrNotFound)
		}
		if err := writeFile(filepath.Join(dir, item.Path), content, fileMode(item.Mode, mode)); err != nil {
			return err
		}
	}
	return nil
}

func fileMode(own, common *int32) os.FileMode {
	switch {
	case own != nil:
		return os.FileMode(*own)
	case common != nil:
		return os.FileMode(*common)
	}
	return os.FileMode(v1.ConfigMapVolumeSourceDefaultMode)
}

func (p *pod) fillDownward(obj *v1.Pod, items []v1.DownwardAPIVolumeFile, dir string, vs *volumes) error {
	for _, item := range items {
		if item.FieldRef == nil {
			return fmt.Errorf("resourceFieldRef in a volume: %w", errUnsupported)
		}
		f := liveFile{path: filepath.Join(dir, item.Path), field: item.FieldRef.FieldPath}
		if err := p.writeLive(obj, f); err != nil {
			return err
		}
		vs.live = append(vs.live, f)
	}
	return nil
}

func (p *pod) writeLive(obj *v1.Pod, f liveFile) error {
	value, err := p.field(obj, f.field)
	if err != nil {
		return err
	}
	return writeFile(f.path, value, 0o644)
}

// refresh asks for a token and writes it. It is to be asked for again when four fifths of its life are over, as the kubelet does.
func (p *pod) refresh(ctx context.Context, obj *v1.Pod, t *token) error {
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		ExpirationSeconds: t.source.ExpirationSeconds,
		BoundObjectRef:    &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: obj.Name, UID: obj.UID},
	}}
	if t.source.Audience != "" {
		request.Spec.Audiences = []string{t.source.Audience}
	}
	issued := time.Now()
	answer, err := p.let.cfg.Client.CoreV1().ServiceAccounts(obj.Namespace).CreateToken(ctx, obj.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("request a token of service account %q: %w", obj.Spec.ServiceAccountName, err)
	}
	t.renew = issued.Add(answer.Status.ExpirationTimestamp.Sub(issued) * 4 / 5)
	return writeFile(t.path, answer.Status.Token, 0o644)
}

// keepTokens refreshes a pod's tokens until ctx ends.
func (p *pod) keepTokens(ctx context.Context, obj *v1.Pod, tokens []token) {
	for len(tokens) > 0 {
		next := &tokens[0]
		for i := range tokens {
			if tokens[i].renew.Before(next.renew) {
				next = &tokens[i]
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next.renew)):
		}
		if err := p.refresh(ctx, obj, next); err != nil {
			p.logger.Error(err, "Token not refreshed, will be tried again")
			next.renew = time.Now().Add(tokenRetry)
		}
	}
}

// writeFile replaces a file at once: readers see the old or the new content.
func writeFile(path, content string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make a directory in a volume: %w", err)
	}
	next := filepath.Join(filepath.Dir(path), "..new."+filepath.Base(path))
	if err := os.WriteFile(next, []byte(content), mode); err != nil {
		return fmt.Errorf("write into a volume: %w", err)
	}
	if err := os.Chmod(next, mode); err != nil {
		return fmt.Errorf("write into a volume: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write into a volume: %w", err)
	}
	return nil
}

// mounts resolves where a container sees its volumes.
func (vs *volumes) mounts(c *v1.Container, vars *variables) ([]sandbox.Mount, error) {
	var mounts []sandbox.Mount
	for _, m := range c.VolumeMounts {
		source, ok := vs.paths[m.Name]
		if !ok {
			return nil, fmt.Errorf("volume %s: %w", m.Name, ErrNotFound)
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = expand(m.SubPathExpr, vars.values)
		}
		if sub != "" {
			source = filepath.Join(source, filepath.Join("/", sub))
			if _, err := os.Stat(source); errors.Is(err, os.ErrNotExist) {
				if err := os.MkdirAll(source, 0o777); err != nil {
					return nil, fmt.Errorf("volume %s: %w", m.Name, err)
				}
			}
		}
		mounts = append(mounts, sandbox.Mount{Source: source, Target: filepath.Join("/", m.MountPath), ReadOnly: m.ReadOnly})
	}
	return mounts, nil
}
