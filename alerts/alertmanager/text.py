"""What a notification says, as Alertmanager's templates (Go's text/template).

Rules write the sentences: their descriptions name model, class, slice and SLO, the figure with its bound, and the
budget left. Here is what a group adds: urgency and model first, for a telephone's screen; since when; where to look.
"""

from __future__ import annotations

from typing import Final

TEMPLATE_FILE: Final = "segwatch.tmpl"

MOST: Final = 8
"""Alerts told in full. A shift in 50 cameras is read by its first lines, and Slack cuts long texts off."""

TEMPLATES: Final = (
    """\
{{ define "segwatch.title" -}}
{{ if eq .Status "resolved" }}RESOLVED{{ else }}{{ or .CommonLabels.notify "alert" | toUpper }}{{ end -}}
{{ with .CommonLabels.model }} {{ . }}{{ end }}: {{ (index .Alerts 0).Annotations.summary }}
{{- if not .CommonAnnotations.summary }} (and {{ len (slice .Alerts 1) }} more){{ end -}}
{{ template "segwatch.classes" . }}{{ template "segwatch.slices" . }}
{{- end }}

{{ define "segwatch.classes" -}}
{{ $last := "" }}{{ range .Alerts }}{{ if and .Labels.class (ne .Labels.class $last) -}}
{{ if $last }}, {{ else }} Classes: {{ end }}{{ .Labels.class }}{{ $last = .Labels.class }}
{{- end }}{{ end }}{{ if $last }}.{{ end }}
{{- end }}

{{ define "segwatch.slices" -}}
{{ $last := "" }}{{ range .Alerts }}{{ if and .Labels.slice (ne .Labels.slice $last) -}}
{{ if $last }}, {{ else }} Slices: {{ end }}{{ .Labels.slice }}{{ $last = .Labels.slice }}
{{- end }}{{ end }}{{ if $last }}.{{ end }}
{{- end }}

{{ define "segwatch.link" }}{{ (index .Alerts 0).Annotations.page_url }}{{ end }}

{{ define "segwatch.text" -}}
{{ $common := .CommonAnnotations -}}
{{ range $index, $alert := .Alerts.Firing }}{{ if lt $index MOST -}}
{{ if not $common.summary }}{{ .Annotations.summary }}
{{ end }}{{ .Annotations.description }}
Since {{ .StartsAt.UTC.Format "Mon 2 Jan 15:04" }} UTC.
{{ if not $common.runbook_url }}Runbook: {{ .Annotations.runbook_url }}
{{ end }}
{{ end }}{{ end -}}
{{ if gt (len .Alerts.Firing) MOST }}{{ len (slice .Alerts.Firing MOST) }} more: {{ .ExternalURL }}

{{ end -}}
{{ range $index, $alert := .Alerts.Resolved }}{{ if lt $index MOST -}}
Over: {{ .Annotations.description }}
From {{ .StartsAt.UTC.Format "Mon 2 Jan 15:04" }} to {{ .EndsAt.UTC.Format "Mon 2 Jan 15:04" }} UTC; its last figures.

{{ end }}{{ end -}}
Page: {{ template "segwatch.link" . }}
Dashboard: {{ (index .Alerts 0).Annotations.dashboard_url }}
{{- with $common.runbook_url }}
Runbook: {{ . }}{{ end }}
{{- end }}
"""
).replace("MOST", str(MOST))
