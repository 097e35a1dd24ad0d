// Package infra is what Prometheus and Grafana are configured with. It reads that for the tests, which hold it to what
// the programs tell and to the runbook.
package infra

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Files are the folders prometheus and grafana/dashboards.
//
//go:embed prometheus grafana/dashboards
var Files embed.FS

// Rule is a recording rule or an alert.
type Rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

// Rules reads all rules.
func Rules() ([]Rule, error) {
	var rules []Rule
	err := each("prometheus/rules/*.yml", func(_ string, content []byte) error {
		var file struct {
			Groups []struct{ Rules []Rule }
		}
		err := yaml.Unmarshal(content, &file)
		for _, g := range file.Groups {
			rules = append(rules, g.Rules...)
		}
		return err
	})
	return rules, err
}

// Dashboard is what the tests look at of a dashboard.
type Dashboard struct {
	File          string `json:"-"`
	UID, Title    string
	SchemaVersion int
	Tags          []string
	Panels        []Panel
	Links         []struct {
		Type string
		Tags []string
	}
	Annotations struct {
		List []struct {
			Expr       string
			Datasource Datasource
		}
	}
	Templating struct {
		List []struct {
			Name, Type, Definition string
		}
	}
}

// Panel is a panel or the title of a row.
type Panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               Datasource
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct {
		Defaults struct{ Unit string }
	}
	Targets []struct {
		RefID, Expr, LegendFormat string
		Datasource                Datasource
	}
}

// Datasource says where a query goes.
type Datasource struct{ Type, UID string }

// Dashboards reads all dashboards.
func Dashboards() ([]Dashboard, error) {
	var dashboards []Dashboard
	err := each("grafana/dashboards/*.json", func(path string, content []byte) error {
		d := Dashboard{File: path}
		err := json.Unmarshal(content, &d)
		dashboards = append(dashboards, d)
		return err
	})
	return dashboards, err
}

// Queries are those of the panels, the annotations and the variables of a dashboard, as Grafana sends them to
// Prometheus for all instances and with this window for rates. The key says where a query stands.
func (d Dashboard) Queries(window string) map[string]string {
	queries := make(map[string]string)
	add := func(place, expr string) {
		queries[d.Title+": "+place] = strings.NewReplacer("$__rate_interval", window, "$instance", ".*").Replace(expr)
	}
	for _, p := range d.Panels {
		for _, t := range p.Targets {
			add(p.Title+" "+t.RefID, t.Expr)
		}
	}
	for i, a := range d.Annotations.List {
		add(fmt.Sprint("annotation ", i+1), a.Expr)
	}
	for _, v := range d.Templating.List {
		if selector, ok := strings.CutPrefix(v.Definition, "label_values("); ok {
			selector, _, _ = strings.Cut(selector, ", ")
			add("variable "+v.Name, selector)
		}
	}
	return queries
}

// each calls f with the files that match a pattern, of which there must be some.
func each(pattern string, f func(path string, content []byte) error) error {
	paths, err := fs.Glob(Files, pattern)
	if err != nil || len(paths) == 0 {
		return fmt.Errorf("infra: nothing matches %s (%v)", pattern, err)
	}
	for _, path := range paths {
		content, err := Files.ReadFile(path)
		if err == nil {
			err = f(path, content)
		}
		if err != nil {
			return fmt.Errorf("infra: %s: %w", path, err)
		}
	}
	return nil
}
