// Grafana writes the dashboards, from what dashboards.go says of them, to the files that Grafana is provisioned with.
// Run it in the folder of the repository after a change: go run ./infra/grafana
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	for _, d := range dashboards {
		content, err := encode(d)
		if err == nil {
			err = os.WriteFile(filepath.Join("infra", "grafana", "dashboards", d.name+".json"), content, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "grafana:", err)
			os.Exit(1)
		}
	}
}

func encode(d dashboard) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(d.json())
	return out.Bytes(), err
}

// dashboard is one of Grafana's, as rows that each answer a question.
type dashboard struct {
	name, title, description string
	job                      string // whose instances can be chosen; empty if there is no choice
	rows                     []row
}

type row struct {
	title  string
	panels []panel
}

// panel is a graph of queries over time, or, if stat is set, the last value of one.
type panel struct {
	title, description string
	unit               string // Grafana's name of it
	width              int    // of 24
	stat               bool
	stack              bool
	max                float64 // of the axis, if it is known
	// warn and bad are where a value turns yellow and red. Bad is where an alert fires, if there is one.
	warn, bad float64
	queries   []query
}

// query is an expression, and how its series are called.
type query struct{ expr, legend string }

// colours are those of series by name, the same on all dashboards.
var colours = map[string]string{
	"ok": "green", "accepted": "blue", "completed": "green", "failed": "red", "sent": "green", "refused": "orange",
	"unknown": "red",
	"moved":   "green", "empty": "blue",
	"sold_out": "light-blue", "limit_exceeded": "purple", "rate_limited": "yellow",
	"queue_unavailable": "orange", "stock_unavailable": "red", "outcome_unknown": "dark-red",
	"internal_error": "semi-dark-red",
	"redis":          "red", "sqs": "orange", "mysql": "blue",
	"visible": "yellow", "in_flight": "blue", "delayed": "purple", "idle": "green", "used": "yellow",
	"p50": "green", "p90": "yellow", "p99": "orange",
}

type object = map[string]any

// source is the data source that is chosen at the top of the dashboard.
var source = object{"type": "prometheus", "uid": "${datasource}"}

const (
	statHeight  = 4
	graphHeight = 8
)

func (d dashboard) json() object {
	panels := []object{}
	id, y := 0, 0
	add := func(p object, x, width, height int) {
		id++
		p["id"] = id
		p["gridPos"] = object{"x": x, "y": y, "w": width, "h": height}
		panels = append(panels, p)
	}
	for _, r := range d.rows {
		add(object{"type": "row", "title": r.title, "collapsed": false, "panels": []object{}}, 0, 24, 1)
		y++
		x, height := 0, 0
		for _, p := range r.panels {
			if x+p.width > 24 {
				x, y = 0, y+height
			}
			height = graphHeight
			if p.stat {
				height = statHeight
			}
			add(p.json(), x, p.width, height)
			x += p.width
		}
		y += height
	}
	variables := []object{{
		"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "hide": 0,
		"multi":      false,
		"includeAll": false, "refresh": 1, "regex": "", "options": []object{}, "current": object{},
	}}
	if d.job != "" {
		choice := fmt.Sprintf("label_values(up{job=%q}, instance)", d.job)
		variables = append(variables, object{
			"type": "query", "name": "instance", "label": "Instance", "datasource": source, "definition": choice,
			"query": object{"qryType": 1, "query": choice, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
			"hide":  0, "multi": true, "includeAll": true, "allValue": ".*", "refresh": 2, "sort": 1, "regex": "",
			"options": []object{},
			"current": object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}},
		})
	}
	return object{
		"uid": "stampede-" + d.name, "title": d.title, "description": d.description, "tags": []string{"stampede"},
		"schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1, "timezone": "browser", "refresh": "10s",
		"time": object{"from": "now-30m", "to": "now"}, "timepicker": object{}, "fiscalYearStartMonth": 0,
		"weekStart": "", "liveNow": false,
		"links": []object{{
			"type": "dashboards", "title": "Stampede", "tags": []string{"stampede"}, "asDropdown": false,
			"includeVars": false,
			"keepTime":    true, "targetBlank": false, "icon": "external link", "tooltip": "", "url": "",
		}},
		"annotations": object{"list": []object{{
			"name": "Alerts", "datasource": source, "enable": true, "hide": false, "iconColor": "red",
			"expr": `ALERTS{alertstate="firing"}`, "titleFormat": "{{alertname}}", "textFormat": "{{severity}}",
			"step": "10s",
		}}},
		"templating": object{"list": variables},
		"panels":     panels,
	}
}

func (p panel) json() object {
	targets := make([]object, len(p.queries))
	for i, q := range p.queries {
		targets[i] = object{
			"refId": string(rune('A' + i)), "datasource": source, "editorMode": "code", "expr": q.expr,
			"legendFormat": q.legend,
			"range":        !p.stat, "instant": p.stat,
		}
	}
	steps := []object{{"color": "green", "value": nil}}
	if p.warn > 0 {
		steps = append(steps, object{"color": "yellow", "value": p.warn})
	}
	if p.bad > 0 {
		steps = append(steps, object{"color": "red", "value": p.bad})
	}
	defaults := object{"unit": p.unit, "min": 0, "thresholds": object{"mode": "absolute", "steps": steps}}
	if p.max > 0 {
		defaults["max"] = p.max
	}
	out := object{
		"title": p.title, "description": p.description, "datasource": source, "targets": targets,
		"fieldConfig": object{"defaults": defaults, "overrides": []object{}},
	}
	if p.stat {
		defaults["color"] = object{"mode": "thresholds"}
		defaults["noValue"] = "–"
		if p.bad == 0 {
			defaults["color"] = object{"mode": "fixed", "fixedColor": "blue"}
		}
		out["type"] = "stat"
		out["options"] = object{
			"colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
			"wideLayout":    true,
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
		}
		return out
	}
	custom := object{
		"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": false,
		"stacking": object{"mode": "none", "group": "A"}, "thresholdsStyle": object{"mode": "off"},
	}
	if p.stack {
		custom["fillOpacity"] = 40
		custom["stacking"] = object{"mode": "normal", "group": "A"}
	}
	if p.bad > 0 {
		custom["thresholdsStyle"] = object{"mode": "dashed"}
	}
	defaults["color"] = object{"mode": "palette-classic"}
	defaults["custom"] = custom
	overrides := []object{}
	for _, name := range p.named() {
		overrides = append(overrides, object{
			"matcher":    object{"id": "byName", "options": name},
			"properties": []object{{"id": "color", "value": object{"mode": "fixed", "fixedColor": colours[name]}}},
		})
	}
	out["fieldConfig"].(object)["overrides"] = overrides
	out["type"] = "timeseries"
	out["options"] = object{
		"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
		"tooltip": object{"mode": "multi", "sort": "desc"},
	}
	return out
}
