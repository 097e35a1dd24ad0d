package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// What MySQL says of values and of statements is not logged, however deep in an error it is; what else it says is.
func TestLogHasNoValues(t *testing.T) {
	for _, c := range []struct {
		number uint16
		state  string
		hidden bool
	}{{1062, "23000", true}, {1064, "42000", true}, {1366, "HY000", true}, {1406, "22001", true},
		{1146, "42S02", false}} {
		server := &mysql.MySQLError{Number: c.number, Message: "about 'ada@example.org'"}
		copy(server.SQLState[:], c.state)
		for _, err := range []error{
			server, fmt.Errorf("add user: %w", server), errors.Join(errors.New("x"), fmt.Errorf("y: %w", server)),
		} {
			var out bytes.Buffer
			slog.New(slog.NewJSONHandler(&out, handlerOptions(slog.LevelDebug))).Error("failed", "error", err)
			if strings.Contains(out.String(), "ada@") == c.hidden ||
				!strings.Contains(out.String(), fmt.Sprint(c.number)) {
				t.Errorf("%d: logged %s", c.number, out.String())
			}
		}
	}
}
