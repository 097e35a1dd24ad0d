package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"stampede/localstack"
)

// locustScript runs the sale of Locust on two workers, and then twice in a row from its page.
const locustScript = `
set -eu
sale=scripts/load/locust/sale.py
worker() { locust -f $sale --worker --master-host 127.0.0.1 --master-port "$MASTER_PORT"; }
worker & one=$!
worker & two=$!
locust --config scripts/load/locust/locust.conf --users 100 --spawn-rate 100 --run-time 8s \
	--master --master-bind-host 127.0.0.1 --master-bind-port "$MASTER_PORT" --expect-workers 2
wait $one
wait $two
echo "distributed=do""ne"

locust -f $sale --web-host 127.0.0.1 --web-port "$WEB_PORT" --stop-timeout 30 & page=$!
url=http://127.0.0.1:$WEB_PORT
curl --silent --fail --retry 100 --retry-delay 1 --retry-connrefused --output /dev/null $url/
for run in first second; do
	curl --silent --fail -d "user_count=100&spawn_rate=100" --output /dev/null $url/swarm
	sleep 3 # for 2 s the page may show the numbers of before
	for i in $(seq 300); do # until an order was decided that somebody has followed
		if curl --silent --fail $url/stats/requests | grep -q '"decision"'; then break; fi
		sleep 0.1
	done
	curl --silent --fail --output /dev/null $url/stop
done
kill $page
wait $page
echo "page=do""ne"
`

// TestLocust: the sale of Locust keeps all of its thresholds with a master and two workers, and twice in a row from its
// page.
func TestLocust(t *testing.T) {
	t.Parallel()
	var env []string
	for _, name := range []string{"MASTER_PORT", "WEB_PORT"} {
		port, err := localstack.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, fmt.Sprintf("%s=%d", name, port))
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "ctl"), "run", "--workers", "1", "--users", "200",
		"--dir", t.TempDir(), "--", "bash", "-c", locustScript)
	cmd.Dir = ".." // it builds the programs from their sources
	// A busy machine may answer slowly, which is not what is tested.
	cmd.Env = append(append(os.Environ(), "P99_MS=60000"), env...)

	out, err := cmd.CombinedOutput()

	text := string(out)
	if err != nil || strings.Contains(text, "MISSED") || strings.Count(text, "orders accepted") != 3 ||
		!strings.Contains(text, "distributed=done") || !strings.Contains(text, "page=done") ||
		!strings.Contains(text, "audit: ok") {
		t.Errorf("%v:\n%s", err, text)
	}
}
