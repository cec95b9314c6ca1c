{{- define "elector.fullname" -}}
{{- .Values.fullnameOverride | default (printf "%s-webhook" (.Release.Name | trunc 55 | trimSuffix "-")) -}}
{{- end -}}

{{- define "elector.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "elector.fullname" .) -}}
{{- end -}}

{{- define "elector.certificateSecret" -}}
{{- $suffix := ternary "ca" "tls" (eq .Values.certificate.mode "self") -}}
{{- .Values.certificate.secretName | default (printf "%s-%s" (include "elector.fullname" .) $suffix) -}}
{{- end -}}

{{- define "elector.selectorLabels" -}}
app.kubernetes.io/name: elector
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhook
{{- end -}}

{{/* All labels of an object, of a dict of root and optionally component (default: webhook, which the Service selects) and labels. */}}
{{- define "elector.labels" -}}
{{- $own := include "elector.selectorLabels" .root | fromYaml -}}
{{- with .component -}}{{- $_ := set $own "app.kubernetes.io/component" . -}}{{- end -}}
{{- $_ := set $own "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- toYaml (merge $own (.labels | default dict) (.root.Values.commonLabels | default dict)) -}}
{{- end -}}

{{/* The annotations of an object with their key, or nothing: of a dict of root and optionally annotations. */}}
{{- define "elector.annotations" -}}
{{- with merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The metadata of an object, of a dict of root and optionally name (default: the fullname), namespace ("none" for objects without one;
     default: the release's), component, labels and annotations. */}}
{{- define "elector.metadata" -}}
name: {{ .name | default (include "elector.fullname" .root) }}
{{- if ne (.namespace | default "") "none" }}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{- end }}
labels:
  {{- include "elector.labels" . | nindent 2 }}
{{- include "elector.annotations" . }}
{{- end -}}

{{/* An image reference, of a dict of image and root. */}}
{{- define "elector.image" -}}
{{- $repository := .image.repository -}}
{{- with ((.root.Values.global).imageRegistry) -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") -}}
{{- end -}}
{{- if .image.digest -}}
{{ $repository }}@{{ .image.digest }}
{{- else -}}
{{ $repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* webhook.namespaceSelector as kubectl takes it, or nothing. */}}
{{- define "elector.namespaceSelector" -}}
{{- $terms := list -}}
{{- range $key, $value := .Values.webhook.namespaceSelector.matchLabels -}}
{{- $terms = append $terms (printf "%s=%s" $key $value) -}}
{{- end -}}
{{- range .Values.webhook.namespaceSelector.matchExpressions -}}
{{- $term := get (dict "In" "%s in (%s)" "NotIn" "%s notin (%s)" "Exists" "%s" "DoesNotExist" "!%s") .operator -}}
{{- if .values -}}
{{- $terms = append $terms (printf $term .key (join "," .values)) -}}
{{- else -}}
{{- $terms = append $terms (printf $term .key) -}}
{{- end -}}
{{- end -}}
{{- join "," $terms -}}
{{- end -}}

{{/* The pull secrets as a list, or nothing. */}}
{{- define "elector.imagePullSecrets" -}}
{{- $names := list -}}
{{- range concat (.Values.imagePullSecrets | default list) (((.Values.global).imagePullSecrets) | default list) -}}
{{- $names = append $names (kindIs "string" . | ternary . (get (kindIs "string" . | ternary (dict) .) "name")) -}}
{{- end -}}
{{- range uniq $names }}
- name: {{ . }}
{{- end -}}
{{- end -}}

{{/* A topology spread constraint, of a dict of constraint and root, about the manager's own pods if it does not say about which. */}}
{{- define "elector.topologySpreadConstraint" -}}
{{- if hasKey .constraint "labelSelector" -}}
{{- toYaml .constraint -}}
{{- else -}}
{{- toYaml (merge (dict "labelSelector" (dict "matchLabels" (include "elector.selectorLabels" .root | fromYaml))) .constraint) -}}
{{- end -}}
{{- end -}}
