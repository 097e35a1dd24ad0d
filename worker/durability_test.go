package main

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"stampede/internal/mysql"
	"stampede/internal/telemetry"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// Who reads the metrics sees that MySQL does not sync its commits, unless it is said to be local.
func TestAMySQLThatMayLoseCommits(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		setting string
		local   bool
		want    float64
	}{
		"synced": {"1", false, 0},
		"lazy":   {"2", false, 1},
		"local":  {"2", true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := stacktest.NewMariaDB(t, localstack.MariaDBOptions{
				Args: []string{"--innodb-flush-log-at-trx-commit=" + test.setting},
			})
			db, err := mysql.Open(server.DSN("mysql"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			watch := telemetry.Durability{DB: db, Local: test.local}
			if err := watch.Check(t.Context()); err != nil {
				t.Fatal(err)
			}

			reg := prometheus.NewRegistry()
			watch.Watch(t.Context(), reg)
			families, err := reg.Gather()
			if err != nil || len(families) != 1 {
				t.Fatalf("the gauge is not there: %v, %v", families, err)
			}
			if v := families[0].GetMetric()[0].GetGauge().GetValue(); v != test.want {
				t.Errorf("%s is %v, want %v", families[0].GetName(), v, test.want)
			}
		})
	}
}
