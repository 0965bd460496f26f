{{- define "wardrobe.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "wardrobe.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "wardrobe.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "wardrobe.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "wardrobe.selector" -}}
app.kubernetes.io/name: {{ include "wardrobe.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "wardrobe.labels" -}}
{{ include "wardrobe.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "wardrobe.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default (printf "cpu-%s" .Chart.AppVersion) .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "wardrobe.claim" -}}
{{- default (printf "%s-registry" (include "wardrobe.fullname" .)) .Values.registry.existingClaim -}}
{{- end -}}

{{/* The pod's own fields: nobody is root, no token, nothing but the volumes can be written. */}}
{{- define "wardrobe.pod" -}}
automountServiceAccountToken: false
# A Service named wardrobe would else put WARDROBE_PORT=tcp://… into every pod, which the settings refuse.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "wardrobe.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* What every container of ours sees: the root, the base model, a place for temporary files. */}}
{{- define "wardrobe.mounts" -}}
- {name: registry, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- if .Values.model.existingClaim }}
- name: model
  mountPath: {{ .Values.model.path }}
  readOnly: true
  {{- with .Values.model.subPath }}
  subPath: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "wardrobe.volumes" -}}
- name: registry
  persistentVolumeClaim: {claimName: {{ include "wardrobe.claim" . }}}
- name: tmp
  emptyDir: {sizeLimit: {{ .Values.tmpSize }}}
{{- with .Values.model.existingClaim }}
- name: model
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Settings as variables; maps and numbers as JSON, which pydantic reads back as they were. */}}
{{- define "wardrobe.settings" -}}
{{- range $key, $value := .Values.settings }}
{{- if not (and (kindIs "map" $value) (empty $value)) }}
- name: WARDROBE_{{ upper $key }}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "wardrobe.init" -}}
- name: init
  image: {{ include "wardrobe.image" . }}
  {{- include "wardrobe.container" . | nindent 2 }}
  # Makes the root, or finds it made for the same base model; another base is refused here.
  args:
    - --root=/data
    - init
    - --base={{ .Values.model.path }}
    {{- with .Values.model.name }}
    - --name={{ . }}
    {{- end }}
    {{- with .Values.model.maxLoraRank }}
    - --max-lora-rank={{ . | int }}
    {{- end }}
  resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {memory: 1Gi}}
  volumeMounts: {{- include "wardrobe.mounts" . | nindent 4 }}
{{- end -}}
