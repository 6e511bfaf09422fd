{{- /* One injector a cluster: the annotations it reads and the names it gives are the cluster's. */ -}}
{{- define "injector.name" -}}mcp-sidecar-injector{{- end }}

{{- define "injector.selector" -}}
app.kubernetes.io/name: mcp-sidecar-injector
{{- end }}

{{- define "injector.labels" -}}
{{ include "injector.selector" . }}
app.kubernetes.io/part-of: mcp-sidecar
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "injector.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* A number of a values file is a float, and large ones would be written 1e+09. */ -}}
{{- define "injector.runAsUser" -}}
{{- kindIs "string" .Values.sidecar.runAsUser | ternary .Values.sidecar.runAsUser (int64 .Values.sidecar.runAsUser) -}}
{{- end }}

{{- define "injector.tlsSecret" -}}
{{- if eq .Values.tls.mode "secret" -}}
{{ .Values.tls.secret.name | required "tls.mode secret needs tls.secret.name" }}
{{- else -}}
{{ include "injector.name" . }}-tls
{{- end -}}
{{- end }}

{{- define "injector.checkTls" -}}
{{- if and (ne .Values.tls.mode "secret") (or .Values.tls.secret.name .Values.tls.secret.caBundle) -}}
{{- fail (printf "tls.secret is set, and tls.mode is %s: there is one way to a certificate" .Values.tls.mode) -}}
{{- end -}}
{{- if and (ne .Values.tls.mode "certManager") .Values.tls.certManager.issuerRef -}}
{{- fail (printf "tls.certManager is set, and tls.mode is %s: there is one way to a certificate" .Values.tls.mode) -}}
{{- end -}}
{{- if and (eq .Values.tls.mode "secret") (not .Values.tls.secret.caBundle) -}}
{{- fail "tls.mode secret needs tls.secret.caBundle: the API server must know whom to trust" -}}
{{- end -}}
{{- end }}

{{- /*
Only before a cluster, whose kube-system is found: `helm template` alone takes some version, which may be an old one.
That is why Chart.yaml has no kubeVersion.
*/ -}}
{{- define "injector.checkCluster" -}}
{{- if and (lookup "v1" "Namespace" "" "kube-system") (semverCompare "<1.30-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "Kubernetes is at %s: ValidatingAdmissionPolicy and matchConditions are stable since 1.30" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end }}

{{- define "injector.checkPorts" -}}
{{- if eq (int .Values.webhook.port) 8081 -}}
{{- fail "webhook.port is 8081, where the injector answers probes: choose another" -}}
{{- end -}}
{{- end }}

{{- /* Null-safe: an annotation that is not there is not true. */ -}}
{{- define "injector.isAnnotated" -}}
has(object.metadata.annotations) && 'mcp-sidecar.io/inject' in object.metadata.annotations && object.metadata.annotations['mcp-sidecar.io/inject'] == 'true'
{{- end }}

{{- define "injector.namespaceSelector" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
      - kube-system
      - kube-node-lease
      - {{ .Release.Namespace | quote }}
      {{- range .Values.webhook.excludedNamespaces }}
      - {{ . | quote }}
      {{- end }}
{{- end }}
