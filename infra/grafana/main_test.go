package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestDashboardsAreWritten holds the files to what dashboards.go says.
func TestDashboardsAreWritten(t *testing.T) {
	files, err := filepath.Glob("dashboards/*")
	if err != nil || len(files) != len(dashboards) {
		t.Errorf("there are %v, want %d dashboards (%v)", files, len(dashboards), err)
	}
	for _, d := range dashboards {
		want, err := encode(d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("dashboards", d.name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s.json is not what dashboards.go says: run go run ./infra/grafana", d.name)
		}
	}
}
