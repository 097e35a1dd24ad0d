package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"stampede/infra"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// prometheus is a real one, which runs with the configuration and the rules in infra.
type prometheus struct {
	t   *testing.T
	dir string
	url string
}

// startPrometheus starts one with what is shipped, but for three things: it finds its targets in files and not in DNS,
// it looks every second, and alerts fire as soon as their expressions are true.
func startPrometheus(t *testing.T) *prometheus {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("%v: run scripts/install-deps prometheus", err)
	}
	addr := freeAddr(t)
	p := &prometheus{t: t, dir: t.TempDir(), url: "http://" + addr}
	shipped, err := fs.Sub(infra.Files, "prometheus")
	if err == nil {
		err = os.CopyFS(p.dir, shipped)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.edit("prometheus.yml", adaptConfig)
	rules, err := filepath.Glob(filepath.Join(p.dir, "rules", "*.yml"))
	if err != nil || len(rules) == 0 {
		t.Fatal(rules, err)
	}
	waits := regexp.MustCompile(`(?m)^( +for: ).*$`)
	for _, file := range rules {
		p.edit(filepath.Join("rules", filepath.Base(file)), func(content []byte) ([]byte, error) {
			return waits.ReplaceAll(content, []byte("${1}0s")), nil
		})
	}
	process, err := localstack.StartProcess(localstack.ProcessOptions{
		Path: path, Dir: p.dir, LogFile: filepath.Join(p.dir, "log"),
		Args: []string{"--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=" + addr,
			"--log.level=warn"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		process.Stop(10 * time.Second)
		if t.Failed() {
			t.Logf("end of the log of prometheus:\n%s", process.LogTail())
		}
	})
	stacktest.Eventually(t, 30*time.Second, func() error {
		select {
		case <-process.Done():
			t.Fatalf("prometheus ended at its start:\n%s", process.LogTail())
		default:
		}
		return expectStatus(p.url+"/-/ready", http.StatusOK)
	})
	return p
}

// adaptConfig changes where targets are found and how often they are looked at, and nothing else.
func adaptConfig(content []byte) ([]byte, error) {
	var config map[string]any
	if err := yaml.Unmarshal(content, &config); err != nil {
		return nil, err
	}
	global := config["global"].(map[string]any)
	for _, interval := range []string{"scrape_interval", "scrape_timeout", "evaluation_interval"} {
		if global[interval] == nil {
			return nil, fmt.Errorf("there is no %s", interval)
		}
		global[interval] = "1s"
	}
	for _, scrape := range config["scrape_configs"].([]any) {
		scrape := scrape.(map[string]any)
		if scrape["dns_sd_configs"] == nil {
			return nil, fmt.Errorf("%v does not find its targets in DNS", scrape)
		}
		delete(scrape, "dns_sd_configs")
		scrape["file_sd_configs"] = []any{map[string]any{"files": []string{targetsFile(scrape["job_name"].(string))},
			"refresh_interval": "1s"}}
	}
	return yaml.Marshal(config)
}

func targetsFile(job string) string { return "targets-" + job + ".json" }

func (p *prometheus) edit(file string, change func([]byte) ([]byte, error)) {
	p.t.Helper()
	path := filepath.Join(p.dir, file)
	content, err := os.ReadFile(path)
	if err == nil {
		content, err = change(content)
	}
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// scrape makes programs all the targets of a job.
func (p *prometheus) scrape(job string, programs ...*program) {
	p.t.Helper()
	var addrs []string
	for _, program := range programs {
		addrs = append(addrs, strings.TrimPrefix(program.admin, "http://"))
	}
	content, err := json.Marshal([]any{map[string]any{"targets": addrs}})
	path := filepath.Join(p.dir, targetsFile(job))
	if err == nil { // at once, so that it is never read half written
		err = os.WriteFile(path+".new", content, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// sample is a series and its value now.
type sample struct {
	labels map[string]string
	value  string // "NaN" if there is none
}

// query evaluates an expression now.
func (p *prometheus) query(expr string) ([]sample, error) {
	resp, err := http.PostForm(p.url+"/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("%s: %s", expr, answer.Error)
	}
	var samples []sample
	for _, r := range answer.Data.Result {
		samples = append(samples, sample{r.Metric, fmt.Sprint(r.Value[1])})
	}
	return samples, nil
}

// hasData returns nil if an expression has at least one value now.
func (p *prometheus) hasData(expr string) error {
	samples, err := p.query(expr)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(samples, func(s sample) bool { return s.value != "NaN" }) {
		return fmt.Errorf("%s has no data: %v", expr, samples)
	}
	return nil
}

// fires waits until these alerts fire and then until those others do not.
func (p *prometheus) fires(alerts []string, others ...string) {
	p.t.Helper()
	start := time.Now()
	var firing []string
	stacktest.Eventually(p.t, time.Minute, func() error {
		samples, err := p.query(`ALERTS{alertstate="firing"}`)
		if err != nil {
			return err
		}
		firing = firing[:0]
		for _, s := range samples {
			firing = append(firing, s.labels["alertname"])
		}
		for _, alert := range alerts {
			if !slices.Contains(firing, alert) {
				return fmt.Errorf("%s does not fire, only %q", alert, firing)
			}
		}
		for _, alert := range others {
			if slices.Contains(firing, alert) {
				return fmt.Errorf("%s fires: %q", alert, firing)
			}
		}
		return nil
	})
	p.t.Logf("after %v these alerts fire: %q", time.Since(start).Round(100*time.Millisecond), firing)
}
