{{/* What the schema cannot say: values that do not go together are refused in one sentence, before anything is installed. The rules of an
     election's durations are not here again: the manager has them, refuses its flags when its pods start, and an upgrade stops there. */}}

{{/* Seconds of a duration such as 1m30s. */}}
{{- define "elector.seconds" -}}
{{- $units := dict "ns" 1e-9 "us" 1e-6 "µs" 1e-6 "ms" 1e-3 "s" 1.0 "m" 60.0 "h" 3600.0 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ns|us|µs|ms|s|m|h)" . -1 -}}
{{- $sum = addf $sum (mulf (regexFind "[0-9.]+" . | float64) (get $units (regexFind "[a-zµ]+" .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* The number that a quantity such as 16Mi or 0.5 is. */}}
{{- define "elector.number" -}}
{{- if not (kindIs "string" .) -}}
{{- float64 . -}}
{{- else -}}
{{- $units := dict "" 1.0 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 -}}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[a-zA-Z]*$" .)) -}}
{{- end -}}
{{- end -}}

{{/* Refuses a value, of a dict of key, value and allowed. */}}
{{- define "elector.refuse" -}}
{{- fail (printf "%s %q is not allowed: %s" .key (toString .value) .allowed) -}}
{{- end -}}

{{- define "elector.validate" -}}
{{- if and (eq .Values.sidecar.mode "leader-for-life") (not .Values.leaderForLife.enabled) -}}
{{- include "elector.refuse" (dict "key" "sidecar.mode" "value" .Values.sidecar.mode "allowed" "leaderForLife.enabled is false") -}}
{{- end -}}

{{- with .Values.sidecar.resources -}}
{{- $limit := include "elector.number" .limits.memory | float64 -}}
{{- if lt $limit 16777216.0 -}}
{{- include "elector.refuse" (dict "key" "sidecar.resources.limits.memory" "value" .limits.memory "allowed" "it must be at least 16Mi") -}}
{{- else if gt (include "elector.number" .requests.memory | float64) $limit -}}
{{- include "elector.refuse" (dict "key" "sidecar.resources.requests.memory" "value" .requests.memory
    "allowed" (printf "it must be at most the limit (%s)" (toString .limits.memory))) -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := dict "sidecar.resources.requests.cpu" .Values.sidecar.resources.requests.cpu "sidecar.guaranteedCPU" .Values.sidecar.guaranteedCPU -}}
{{- if gt (include "elector.number" $value | float64) 1.0 -}}
{{- include "elector.refuse" (dict "key" $key "value" $value "allowed" "it must be at most 1") -}}
{{- end -}}
{{- end -}}

{{- with .Values.certificate -}}
{{- if ne .mode "secret" -}}
{{- if .caBundle -}}
{{- include "elector.refuse" (dict "key" "certificate.caBundle" "value" "..."
    "allowed" (printf "in certificate.mode %s something else writes it; it is for mode secret" .mode)) -}}
{{- else if and (eq .mode "cert-manager") (lt (include "elector.seconds" .lifetime | float64) 3600.0) -}}
{{- include "elector.refuse" (dict "key" "certificate.lifetime" "value" .lifetime "allowed" "cert-manager makes none for less than 1h") -}}
{{- else if lt (include "elector.seconds" .lifetime | float64) 10.0 -}}
{{- include "elector.refuse" (dict "key" "certificate.lifetime" "value" .lifetime "allowed" "it must be at least 10s") -}}
{{- else if lt (include "elector.seconds" .caLifetime | float64) (mulf 3.0 (include "elector.seconds" .lifetime | float64)) -}}
{{- include "elector.refuse" (dict "key" "certificate.caLifetime" "value" .caLifetime
    "allowed" (printf "it must be at least three times certificate.lifetime (%s)" .lifetime)) -}}
{{- end -}}
{{- end -}}
{{- if and .issuerRef (ne .mode "cert-manager") -}}
{{- include "elector.refuse" (dict "key" "certificate.issuerRef" "value" (toJson .issuerRef)
    "allowed" (printf "certificate.mode is %s; it is for mode cert-manager" .mode)) -}}
{{- end -}}
{{- end -}}

{{- if gt (addf (include "elector.seconds" .Values.drain | float64) 15.0) (float64 .Values.terminationGracePeriodSeconds) -}}
{{- include "elector.refuse" (dict "key" "terminationGracePeriodSeconds" "value" .Values.terminationGracePeriodSeconds
    "allowed" (printf "it must be at least drain (%s) and 15s" .Values.drain)) -}}
{{- end -}}
{{- with .Values.ports -}}
{{- if lt (len (uniq (list (int .webhook) (int .health) (int .metrics)))) 3 -}}
{{- include "elector.refuse" (dict "key" "ports" "value" (printf "%d %d %d" (int .webhook) (int .health) (int .metrics)) "allowed" "use three different ones") -}}
{{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.hostNetwork -}}
{{- include "elector.refuse" (dict "key" "networkPolicy.enabled" "value" true "allowed" "network policies do not count for pods with hostNetwork") -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
{{- include "elector.refuse" (dict "key" "serviceMonitor.enabled" "value" true "allowed" "podMonitor.enabled is true, and everything would be counted twice") -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- include "elector.refuse" (dict "key" "serviceAccount.create" "value" false "allowed" "give serviceAccount.name, the one to use") -}}
{{- end -}}

{{- $named := dict "lock" "fullnameOverride" "service" "fullnameOverride" "webhook-configuration" "fullnameOverride"
    "certificate-secret" "certificate.secretName" "namespace" "helm's own --namespace" -}}
{{- range $argument := .Values.extraArgs -}}
{{- with get $named (regexFind "^--[^=]*" $argument | trimPrefix "--") -}}
{{- include "elector.refuse" (dict "key" "extraArgs" "value" $argument "allowed" (printf "use %s, the chart's other objects know this name" .)) -}}
{{- end -}}
{{- end -}}

{{- $own := include "elector.labels" (dict "root" (dict "Chart" .Chart "Release" .Release "Values" dict)) | fromYaml -}}
{{- range $values, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels -}}
{{- range $key, $value := $labels -}}
{{- if hasKey $own $key -}}
{{- include "elector.refuse" (dict "key" (printf "%s.%s" $values $key) "value" $value "allowed" "the chart sets this label") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $elected := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "commonAnnotations" .Values.commonAnnotations
    "podAnnotations" .Values.podAnnotations "deploymentAnnotations" .Values.deploymentAnnotations -}}
{{- range $values, $entries := $elected -}}
{{- range $key, $value := $entries -}}
{{- if hasPrefix "elector.io/" $key -}}
{{- include "elector.refuse" (dict "key" (printf "%s.%s" $values $key) "value" $value "allowed" "the manager gets no sidecar, since it would wait for itself to start") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
