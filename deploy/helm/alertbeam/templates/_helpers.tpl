{{/* Flink's names have at most 45 characters, and end in -rest. */}}
{{- define "alertbeam.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "alertbeam.labels" -}}
app.kubernetes.io/name: alertbeam
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* What Flink itself puts on the pods it starts. */}}
{{- define "alertbeam.flinkPods" -}}
app: {{ include "alertbeam.name" . }}
type: flink-native-kubernetes
{{- end -}}

{{/* A pod's own: list of the root and its part. */}}
{{- define "alertbeam.podLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: alertbeam
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
azure.workload.identity/use: {{ $root.Values.serviceAccount.workloadIdentity | empty | not | quote }}
{{- with $root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "alertbeam.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "alertbeam.name" .) -}}
{{- end -}}

{{/* An image: list of the root and its name in .Values.images. */}}
{{- define "alertbeam.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "alertbeam.podSecurity" -}}
runAsNonRoot: true
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Of a container: its user. */}}
{{- define "alertbeam.security" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "alertbeam.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "alertbeam.secretProviderClass" -}}
{{- if .Values.secrets.secretProviderClass -}}
{{ .Values.secrets.secretProviderClass }}
{{- else if .Values.secrets.keyVault.name -}}
{{ include "alertbeam.name" . }}
{{- end -}}
{{- end -}}

{{- define "alertbeam.hasSecrets" -}}
{{- if or .Values.secrets.existingSecret (include "alertbeam.secretProviderClass" .) }}true{{ end -}}
{{- end -}}

{{/* Of a container that is alertbeam: settings, secrets, state, scratch. */}}
{{- define "alertbeam.mounts" -}}
- name: settings
  mountPath: /etc/alertbeam
  readOnly: true
{{- if include "alertbeam.hasSecrets" . }}
- name: secrets
  mountPath: /run/secrets/alertbeam
  readOnly: true
{{- end }}
- name: state
  mountPath: /var/lib/alertbeam
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "alertbeam.volumes" -}}
- name: settings
  configMap:
    name: {{ include "alertbeam.name" . }}-settings
{{- if .Values.secrets.existingSecret }}
- name: secrets
  secret:
    secretName: {{ .Values.secrets.existingSecret }}
    defaultMode: 288 # 0440
{{- else if include "alertbeam.secretProviderClass" . }}
- name: secrets
  csi:
    driver: secrets-store.csi.k8s.io
    readOnly: true
    volumeAttributes:
      secretProviderClass: {{ include "alertbeam.secretProviderClass" . }}
{{- end }}
- name: state
  persistentVolumeClaim:
    claimName: {{ .Values.state.existingClaim | default (printf "%s-state" (include "alertbeam.name" .)) }}
{{- end -}}

{{- define "alertbeam.env" -}}
- name: HOME
  value: /tmp
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Flink's own container in either pod: list of the root and the port that is alive. */}}
{{- define "alertbeam.flinkContainer" -}}
{{- $root := index . 0 -}}
name: flink-main-container
securityContext:
  {{- include "alertbeam.security" 9999 | nindent 2 }}
{{- if and (hasPrefix "abfs" $root.Values.checkpoints.dir) (eq $root.Values.checkpoints.azure.auth "key") }}
env:
  - name: AZURE_STORAGE_KEY
    valueFrom:
      secretKeyRef:
        name: {{ $root.Values.checkpoints.azure.keySecret.name }}
        key: {{ $root.Values.checkpoints.azure.keySecret.key }}
{{- end }}
ports:
  - name: flink-metrics
    containerPort: 9249
startupProbe:
  tcpSocket:
    port: {{ index . 1 }}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  tcpSocket:
    port: {{ index . 1 }}
  periodSeconds: 30
  failureThreshold: 4
{{- end -}}

{{/* Annotations for Prometheus: list of the root and the port. */}}
{{- define "alertbeam.scrape" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.metrics.annotations }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ index . 1 | quote }}
{{- end }}
{{- with $root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "alertbeam.flinkMounts" -}}
- name: flink-tmp
  mountPath: /tmp
- name: flink-log
  mountPath: /opt/flink/log
- name: kubernetes
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- if .Values.checkpoints.existingClaim }}
- name: checkpoints
  mountPath: /var/lib/flink
{{- end }}
{{- end -}}

{{/* Flink's container alone gets the cluster's token: the JobManager starts and ends TaskManagers,
and both keep who leads in ConfigMaps. The workers, which read what others wrote, do not. */}}
{{- define "alertbeam.flinkVolumes" -}}
- name: flink-tmp
  emptyDir:
    sizeLimit: {{ .Values.flink.scratch }}
- name: flink-log
  emptyDir:
    sizeLimit: 1Gi
- name: kubernetes
  projected:
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3607
      - configMap:
          name: kube-root-ca.crt
          items:
            - {key: ca.crt, path: ca.crt}
      - downwardAPI:
          items:
            - path: namespace
              fieldRef: {fieldPath: metadata.namespace}
{{- with .Values.checkpoints.existingClaim }}
- name: checkpoints
  persistentVolumeClaim:
    claimName: {{ . }}
{{- end }}
{{- end -}}

{{/* Flink's configuration: what alertbeam wants, and what the values say otherwise. */}}
{{- define "alertbeam.flinkConfiguration" -}}
{{- $dir := .Values.checkpoints.dir | trimSuffix "/" -}}
{{- $all := dict
  "taskmanager.numberOfTaskSlots" .Values.flink.taskSlots
  "state.backend.type" "rocksdb"
  "state.backend.incremental" "true"
  "state.checkpoints.dir" (printf "%s/checkpoints" $dir)
  "state.savepoints.dir" (printf "%s/savepoints" $dir)
  "state.checkpoints.num-retained" "3"
  "execution.checkpointing.externalized-checkpoint-retention" "RETAIN_ON_CANCELLATION"
  "high-availability.type" "kubernetes"
  "high-availability.storageDir" (printf "%s/ha" $dir)
  "restart-strategy.type" "exponential-delay"
  "restart-strategy.exponential-delay.max-backoff" "1 min"
  "metrics.reporter.prom.factory.class" "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
  "metrics.reporter.prom.port" "9249"
  "kubernetes.operator.savepoint.history.max.count" "10"
  "env.java.opts.all" (include "alertbeam.javaOptions" .)
-}}
{{- if hasPrefix "abfs" $dir -}}
{{- $account := regexReplaceAll "^abfss?://[^@/]+@([^/]+).*$" $dir "${1}" -}}
{{- if eq .Values.checkpoints.azure.auth "key" -}}
{{/* Hadoop puts the variable's value in; the configuration has its name alone. */}}
{{- $_ := set $all (printf "fs.azure.account.key.%s" $account) "${env.AZURE_STORAGE_KEY}" -}}
{{- else -}}
{{- $_ := set $all (printf "fs.azure.account.auth.type.%s" $account) "OAuth" -}}
{{- $_ := set $all (printf "fs.azure.account.oauth.provider.type.%s" $account) "org.apache.hadoop.fs.azurebfs.oauth2.MsiTokenProvider" -}}
{{- $_ := set $all (printf "fs.azure.account.oauth2.client.id.%s" $account) .Values.checkpoints.azure.clientId -}}
{{- $_ := set $all (printf "fs.azure.account.oauth2.msi.tenant.%s" $account) .Values.checkpoints.azure.tenantId -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := .Values.flink.configuration -}}
{{- $_ := set $all $key $value -}}
{{- end -}}
{{- range $key, $value := $all }}
{{ $key }}: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{/* What Flink's own configuration gives Java 17, which the operator's replaces; Beam wants no more. */}}
{{- define "alertbeam.javaOptions" -}}
{{- $all := list "--add-exports=java.base/sun.net.util=ALL-UNNAMED" "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED" "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED" -}}
{{- range list "lang" "net" "io" "nio" "text" "time" "util" "lang.reflect" "util.concurrent" "util.concurrent.atomic" "util.concurrent.locks" -}}
{{- $all = append $all (printf "--add-opens=java.base/java.%s=ALL-UNNAMED" .) -}}
{{- end -}}
{{- $all = append $all "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED" -}}
{{- join " " $all -}}
{{- end -}}

{{/* What cannot work is refused here, not by a pod. */}}
{{- define "alertbeam.check" -}}
{{- $settings := .Values.settings | fromYaml -}}
{{- if hasKey $settings "Error" }}{{ fail (printf "settings: not YAML: %s" $settings.Error) }}{{ end -}}
{{- if not (hasPrefix "/var/lib/alertbeam/" (toString $settings.state)) }}{{ fail "settings: state must be a folder under /var/lib/alertbeam, which is the shared volume" }}{{ end -}}
{{- if not .Values.checkpoints.dir }}{{ fail "checkpoints.dir: name a folder that every pod reaches, such as abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/alertbeam" }}{{ end -}}
{{- if and (hasPrefix "file:" .Values.checkpoints.dir) (not (and .Values.checkpoints.existingClaim (hasPrefix "file:///var/lib/flink" .Values.checkpoints.dir))) }}{{ fail "checkpoints: a folder of files is file:///var/lib/flink, which existingClaim is mounted at" }}{{ end -}}
{{- if hasPrefix "abfs" .Values.checkpoints.dir -}}
{{- if and (eq .Values.checkpoints.azure.auth "key") (not .Values.checkpoints.azure.keySecret.name) }}{{ fail "checkpoints.azure.keySecret.name: name the Secret that holds the storage account's key" }}{{ end -}}
{{- if and (eq .Values.checkpoints.azure.auth "managedIdentity") (not (and .Values.checkpoints.azure.clientId .Values.checkpoints.azure.tenantId)) }}{{ fail "checkpoints.azure: a managed identity needs clientId and tenantId" }}{{ end -}}
{{- end -}}
{{- if and (contains "file:/run/secrets/alertbeam/" .Values.settings) (not (include "alertbeam.hasSecrets" .)) }}{{ fail "secrets: the settings name files under /run/secrets/alertbeam: say existingSecret, secretProviderClass or keyVault" }}{{ end -}}
{{- if and .Values.secrets.keyVault.name (not (and .Values.secrets.keyVault.tenantId .Values.serviceAccount.workloadIdentity)) }}{{ fail "secrets.keyVault: it needs tenantId, and serviceAccount.workloadIdentity" }}{{ end -}}
{{- if and .Values.replay.enabled (not .Values.replay.history) }}{{ fail "replay.history: name what is to be read" }}{{ end -}}
{{- end -}}
