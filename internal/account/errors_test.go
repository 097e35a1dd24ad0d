package account

import (
	"testing"

	"stampede/internal/mysql"
)

// The errors of this package are the fault of who asks, and no outage of MySQL.
func TestClassify(t *testing.T) {
	t.Parallel()
	for _, err := range []error{ErrEnded, ErrReused, ErrDisabled, ErrPasswordChanged} {
		if got := mysql.Classify(err); got != mysql.Own {
			t.Errorf("%v: %s, want %s", err, got, mysql.Own)
		}
	}
}
