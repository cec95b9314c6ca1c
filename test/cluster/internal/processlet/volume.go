package processlet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/elector-io/elector/test/cluster/internal/sandbox"
)

// volumeRetry is how soon a volume that could not be brought up to date is tried again.
const volumeRetry = 10 * time.Second

// errUnsupported marks what will not work later either.
var errUnsupported = errors.New("not played by the processlet")

// volumes are the directories behind a pod's volumes.
type volumes struct {
	paths map[string]string
	// projections are those whose files come from the API, and follow it.
	projections []*projection
}

// projection is a volume with files made of ConfigMaps, Secrets, tokens and the pod itself.
type projection struct {
	dir     string
	sources []v1.VolumeProjection
	mode    *int32
	tokens  map[string]token // by path
	files   map[string]file  // as written, by path
}

type token struct {
	content string
	renew   time.Time
}

type file struct {
	content string
	mode    os.FileMode
}

// makeVolumes fills all volumes of a pod.
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
	case v.HostPath != nil:
		vs.paths[v.Name] = v.HostPath.Path
		if _, err := os.Stat(v.HostPath.Path); err != nil {
			return fmt.Errorf("host path: %w", err)
		}
		return nil
	}
	sources, mode := projected(v)
	if sources == nil {
		return fmt.Errorf("this kind of volume: %w", errUnsupported)
	}
	pr := &projection{dir: dir, sources: sources, mode: mode, tokens: map[string]token{}}
	vs.projections = append(vs.projections, pr)
	return p.project(ctx, obj, pr)
}

// projected is what a volume is made of, in the form that a projected volume has; nil for other volumes.
func projected(v *v1.Volume) (sources []v1.VolumeProjection, mode *int32) {
	switch {
	case v.ConfigMap != nil:
		c := v.ConfigMap
		return []v1.VolumeProjection{{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: c.LocalObjectReference, Items: c.Items, Optional: c.Optional}}}, c.DefaultMode
	case v.Secret != nil:
		s := v.Secret
		name := v1.LocalObjectReference{Name: s.SecretName}
		return []v1.VolumeProjection{{Secret: &v1.SecretProjection{LocalObjectReference: name, Items: s.Items, Optional: s.Optional}}}, s.DefaultMode
	case v.DownwardAPI != nil:
		return []v1.VolumeProjection{{DownwardAPI: &v1.DownwardAPIProjection{Items: v.DownwardAPI.Items}}}, v.DownwardAPI.DefaultMode
	case v.Projected != nil:
		return append([]v1.VolumeProjection{}, v.Projected.Sources...), v.Projected.DefaultMode
	}
	return nil, nil
}

// reference is an object that a pod's volumes are made of.
type reference struct{ kind, namespace, name string }

const (
	kindConfigMap = "ConfigMap"
	kindSecret    = "Secret"
)

func references(obj *v1.Pod) map[reference]bool {
	found := map[reference]bool{}
	for i := range obj.Spec.Volumes {
		sources, _ := projected(&obj.Spec.Volumes[i])
		for _, s := range sources {
			if s.ConfigMap != nil {
				found[reference{kindConfigMap, obj.Namespace, s.ConfigMap.Name}] = true
			}
			if s.Secret != nil {
				found[reference{kindSecret, obj.Namespace, s.Secret.Name}] = true
			}
		}
	}
	return found
}

// project brings a volume's files up to date. When it fails, they stay as they were.
func (p *pod) project(ctx context.Context, obj *v1.Pod, pr *projection) error {
	files := map[string]file{}
	for _, source := range pr.sources {
		var err error
		switch {
		case source.ServiceAccountToken != nil:
			err = p.addToken(ctx, obj, source.ServiceAccountToken, pr.tokens, files)
		case source.ConfigMap != nil:
			var data map[string]string
			if data, err = p.configMap(ctx, obj.Namespace, source.ConfigMap.Name, source.ConfigMap.Optional); err == nil {
				err = addItems(data, source.ConfigMap.Items, source.ConfigMap.Optional, pr.mode, files)
			}
		case source.Secret != nil:
			var data map[string]string
			if data, err = p.secret(ctx, obj.Namespace, source.Secret.Name, source.Secret.Optional); err == nil {
				err = addItems(data, source.Secret.Items, source.Secret.Optional, pr.mode, files)
			}
		case source.DownwardAPI != nil:
			err = p.addFields(obj, source.DownwardAPI.Items, files)
		default:
			err = fmt.Errorf("this kind of projection: %w", errUnsupported)
		}
		if err != nil {
			return err
		}
	}
	if maps.Equal(files, pr.files) {
		return nil
	}
	if err := replaceFiles(pr.dir, files); err != nil {
		return err
	}
	pr.files = files
	return nil
}

// addItems adds the chosen keys, or all when none is chosen.
func addItems(data map[string]string, items []v1.KeyToPath, optional *bool, mode *int32, files map[string]file) error {
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
		files[filepath.Clean(item.Path)] = file{content, fileMode(item.Mode, mode)}
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

func (p *pod) addFields(obj *v1.Pod, items []v1.DownwardAPIVolumeFile, files map[string]file) error {
	for _, item := range items {
		if item.FieldRef == nil {
			return fmt.Errorf("resourceFieldRef in a volume: %w", errUnsupported)
		}
		value, err := p.field(obj, item.FieldRef.FieldPath)
		if err != nil {
			return err
		}
		files[filepath.Clean(item.Path)] = file{value, 0o644}
	}
	return nil
}

// addToken adds the token there is, or asks for one. It is asked for again when four fifths of its life are over, as the kubelet does.
func (p *pod) addToken(ctx context.Context, obj *v1.Pod, source *v1.ServiceAccountTokenProjection, tokens map[string]token, files map[string]file) error {
	path := filepath.Clean(source.Path)
	if t, ok := tokens[path]; ok && time.Now().Before(t.renew) {
		files[path] = file{t.content, 0o644}
		return nil
	}
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		ExpirationSeconds: source.ExpirationSeconds,
		BoundObjectRef:    &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: obj.Name, UID: obj.UID},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	issued := time.Now()
	answer, err := p.let.cfg.Client.CoreV1().ServiceAccounts(obj.Namespace).CreateToken(ctx, obj.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("request a token of service account %q: %w", obj.Spec.ServiceAccountName, err)
	}
	tokens[path] = token{answer.Status.Token, issued.Add(answer.Status.ExpirationTimestamp.Sub(issued) * 4 / 5)}
	files[path] = file{answer.Status.Token, 0o644}
	return nil
}

// keepVolumes keeps the files right until ctx ends: when a token is due, and when the pod or what the files are made of has changed.
func (p *pod) keepVolumes(ctx context.Context, vs *volumes) {
	if len(vs.projections) == 0 {
		return
	}
	for retry := false; ; {
		due := vs.due()
		if retry {
			due = time.Now().Add(volumeRetry)
		}
		if !p.awaitStale(ctx, due) {
			return
		}
		retry = false
		for _, pr := range vs.projections {
			if err := p.bringUpToDate(ctx, pr); err != nil && ctx.Err() == nil {
				p.logger.Error(err, "Volume not brought up to date, will be tried again", "volume", filepath.Base(pr.dir))
				retry = true
			}
		}
	}
}

func (p *pod) bringUpToDate(ctx context.Context, pr *projection) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return p.project(ctx, p.latest.Load(), pr)
}

// awaitStale returns false when ctx has ended, and true when the volumes have to be looked at. The zero time never comes.
func (p *pod) awaitStale(ctx context.Context, due time.Time) bool {
	var alarm <-chan time.Time
	if !due.IsZero() {
		timer := time.NewTimer(time.Until(due))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-p.stale:
	case <-alarm:
	}
	return true
}

// due is when the first token has to be renewed.
func (vs *volumes) due() (first time.Time) {
	for _, pr := range vs.projections {
		for _, t := range pr.tokens {
			if first.IsZero() || t.renew.Before(first) {
				first = t.renew
			}
		}
	}
	return first
}

// markStale has the volumes looked at.
func (p *pod) markStale() {
	select {
	case p.stale <- struct{}{}:
	default:
	}
}

// The way of the kubelet: the files are in a directory that readers reach through the link dataLink, and a changed volume is a new
// directory and the link renamed. Readers see all files as they were or all as they are.
const (
	dataLink    = "..data"
	newDataLink = "..data_new"
	dataPattern = "..files_*"
)

// replaceFiles makes files all there is in a volume.
func replaceFiles(dir string, files map[string]file) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write into a volume: %w", err)
		}
	}()
	before, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	next, err := os.MkdirTemp(dir, dataPattern)
	if err != nil {
		return err
	}
	if err := os.Chmod(next, 0o755); err != nil {
		return err
	}
	names := map[string]bool{}
	for path, f := range files {
		if err := writeFile(filepath.Join(next, path), f); err != nil {
			return err
		}
		name, _, _ := strings.Cut(path, string(filepath.Separator))
		names[name] = true
	}
	link := filepath.Join(dir, newDataLink)
	if err := errors.Join(os.Symlink(filepath.Base(next), link), os.Rename(link, filepath.Join(dir, dataLink))); err != nil {
		return err
	}
	for name := range names {
		if err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if before != "" {
		err = os.RemoveAll(filepath.Join(dir, before))
	}
	return errors.Join(removeStaleLinks(dir, names), err)
}

func writeFile(path string, f file) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(f.content), f.mode); err != nil {
		return err
	}
	return os.Chmod(path, f.mode) // whatever the umask is
}

func removeStaleLinks(dir string, names map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !names[e.Name()] && !strings.HasPrefix(e.Name(), "..") {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
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
