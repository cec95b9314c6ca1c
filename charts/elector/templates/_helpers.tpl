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

{{- define "elector.labels" -}}
{{ include "elector.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image reference, of a dict of image and root. */}}
{{- define "elector.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}
