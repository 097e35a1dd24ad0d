package infra_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"stampede/infra"
)

// TestPromtool has Prometheus's own tool judge the configuration and the rules, and run the tests of the rules.
func TestPromtool(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"check", "config", "prometheus/prometheus.yml"}, // with the rules that it names
		append([]string{"test", "rules"}, glob(t, "prometheus/tests/*.yml")...),
	} {
		t.Run(strings.Join(args[:2], " "), func(t *testing.T) {
			t.Parallel()
			if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
				t.Errorf("promtool %s: %v (scripts/install-deps prometheus installs it)\n%s", strings.Join(args, " "),
					err, out)
			}
		})
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %v %v", pattern, paths, err)
	}
	return paths
}

// TestEveryAlertIsTestedAndDocumented compares the alerts with their tests and with the runbook, and the other way
// round.
func TestEveryAlertIsTestedAndDocumented(t *testing.T) {
	t.Parallel()
	rules, err := infra.Rules()
	if err != nil {
		t.Fatal(err)
	}
	var alerts []string
	for _, r := range rules {
		if r.Alert == "" {
			continue
		}
		if slices.Contains(alerts, r.Alert) {
			t.Errorf("there are two alerts %s", r.Alert)
		}
		alerts = append(alerts, r.Alert)
		if severity := r.Labels["severity"]; severity != "page" && severity != "ticket" {
			t.Errorf("%s has the severity %q", r.Alert, severity)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s does not say what is the matter: %q", r.Alert, r.Annotations)
		}
		if want := "docs/runbook.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s refers to %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
		}
	}

	fires, silent := make(map[string]bool), make(map[string]bool)
	for _, path := range glob(t, "prometheus/tests/*.yml") {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Tests []struct {
				Rules []struct {
					Alert string `yaml:"alertname"`
					Want  []any  `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		if err := yaml.Unmarshal(content, &file); err != nil {
			t.Fatal(path, err)
		}
		for _, group := range file.Tests {
			for _, test := range group.Rules {
				if len(test.Want) > 0 {
					fires[test.Alert] = true
				} else {
					silent[test.Alert] = true
				}
			}
		}
	}

	runbook, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	_, sections, _ := strings.Cut(string(runbook), "\n## The alerts\n")
	sections, _, _ = strings.Cut(sections, "\n## ")
	documented := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(sections, -1) {
		documented[heading[1]] = true
	}

	for what, names := range map[string]map[string]bool{
		"test in which it fires": fires, "test in which it is silent": silent, "section in the runbook": documented,
	} {
		for _, alert := range alerts {
			if !names[alert] {
				t.Errorf("%s has no %s", alert, what)
			}
			delete(names, alert)
		}
		for name := range names {
			t.Errorf("there is a %s for %s, which is no alert", what, name)
		}
	}
}

// TestDashboards holds the dashboards to what Grafana needs and a reader expects. Whether their queries find anything
// is tested with a real Prometheus, in e2e.
func TestDashboards(t *testing.T) {
	t.Parallel()
	dashboards, err := infra.Dashboards()
	if err != nil {
		t.Fatal(err)
	}
	source := infra.Datasource{Type: "prometheus", UID: "${datasource}"}
	uids := make(map[string]bool)
	for _, d := range dashboards {
		if d.UID == "" || uids[d.UID] || d.Title == "" || d.SchemaVersion < 39 || !slices.Contains(d.Tags, "stampede") {
			t.Errorf("%s has the uid %q, the title %q, schema version %d and tags %v", d.File, d.UID, d.Title,
				d.SchemaVersion, d.Tags)
		}
		uids[d.UID] = true
		if len(d.Links) != 1 || d.Links[0].Type != "dashboards" ||
			!slices.Equal(d.Links[0].Tags, []string{"stampede"}) {
			t.Errorf("%s does not link to the other dashboards: %v", d.File, d.Links)
		}
		if len(d.Templating.List) == 0 || d.Templating.List[0].Name != "datasource" ||
			d.Templating.List[0].Type != "datasource" {
			t.Errorf("in %s the data source cannot be chosen: %v", d.File, d.Templating.List)
		}
		for _, a := range d.Annotations.List {
			if a.Datasource != source {
				t.Errorf("in %s an annotation has the data source %v", d.File, a.Datasource)
			}
		}
		ids := make(map[int]bool)
		taken := make(map[[2]int]string) // cells of the grid
		for _, p := range d.Panels {
			name := d.File + ", panel " + p.Title
			if p.Title == "" || ids[p.ID] {
				t.Errorf("%s has no title, or not an id of its own: %d", name, p.ID)
			}
			ids[p.ID] = true
			if p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W < 1 || p.GridPos.H < 1 {
				t.Errorf("%s does not fit: %v", name, p.GridPos)
			}
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					if other, ok := taken[cell]; ok {
						t.Fatalf("%s lies over %s", name, other)
					}
					taken[cell] = name
				}
			}
			if p.Type == "row" {
				continue
			}
			if p.Type != "stat" && p.Type != "timeseries" {
				t.Errorf("%s is of the type %q, which not every Grafana may have", name, p.Type)
			}
			if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || p.Datasource != source ||
				len(p.Targets) == 0 {
				t.Errorf("%s has the description %q, the unit %q, the data source %v and %d queries", name,
					p.Description,
					p.FieldConfig.Defaults.Unit, p.Datasource, len(p.Targets))
			}
			refs := make(map[string]bool)
			for _, q := range p.Targets {
				if q.RefID == "" || refs[q.RefID] || q.Expr == "" || q.Datasource != source || q.LegendFormat == "" &&
					p.Type != "stat" {
					t.Errorf("%s has an unfit query: %+v", name, q)
				}
				refs[q.RefID] = true
			}
		}
	}
}

// TestProvisioning reads what Grafana is started with.
func TestProvisioning(t *testing.T) {
	t.Parallel()
	var sources struct {
		Datasources []struct{ Type, URL string }
	}
	var providers struct {
		Providers []struct {
			Type    string
			Options struct{ Path string }
		}
	}
	for path, into := range map[string]any{
		"grafana/provisioning/datasources/prometheus.yaml": &sources,
		"grafana/provisioning/dashboards/stampede.yaml":    &providers,
	} {
		content, err := os.ReadFile(path)
		if err == nil {
			err = yaml.Unmarshal(content, into)
		}
		if err != nil {
			t.Fatal(path, err)
		}
	}
	if s := sources.Datasources; len(s) != 1 || s[0].Type != "prometheus" || s[0].URL != "http://prometheus:9090" {
		t.Errorf("the data sources are %+v", s)
	}
	if p := providers.Providers; len(p) != 1 || p[0].Type != "file" || p[0].Options.Path != "/etc/grafana/dashboards" {
		t.Errorf("the dashboards come from %+v", p)
	}
}
