{{- define "mainstay.image" -}}
{{- with .Values.image.prefix }}{{ . }}/{{ end -}}
{{ .Values.image.name }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
