package lab

import (
	"testing"

	"stampede/localstack/stacktest"
)

// TestMain starts no servers, since a fleet has its own, and fails if goroutines are left.
func TestMain(m *testing.M) { stacktest.Main(m, 0) }
