package tidy

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "stampede/"

// allowedImports says which packages of this module each of them imports, tests apart. What is not here imports none.
//
// The programs (edge, shop, worker, ctl) import none of each other. A domain package knows the order, and not another's
// technology; redis with its stock and notices, mysql with its ledger and accounts, and queue (SQS) are joined only by
// access, audit, board, buckets, catalog, daemon, lab, reconcile and telemetry; till joins ledger and wallet, which it
// pays in one transaction. Ledger and account know nothing of each
// other. A new edge in this graph is a decision: make it here, and in "Where things live" of docs/architecture.md.
var allowedImports = map[string][]string{
	"edge": {
		"internal/access", "internal/apidoc", "internal/batch", "internal/board", "internal/buckets",
		"internal/catalog", "internal/config", "internal/daemon", "internal/framing", "internal/front",
		"internal/ledger", "internal/loop", "internal/mysql", "internal/notice", "internal/order", "internal/pager",
		"internal/problem", "internal/queue", "internal/redis",
		"internal/stock", "internal/telemetry", "internal/token",
	},
	"shop": {
		"internal/access", "internal/account", "internal/buckets", "internal/catalog", "internal/config",
		"internal/daemon", "internal/front", "internal/ledger", "internal/mysql", "internal/notice", "internal/order",
		"internal/pager", "internal/password", "internal/payment", "internal/problem", "internal/reconcile",
		"internal/redis", "internal/stock", "internal/telemetry", "internal/till", "internal/token", "internal/wallet",
	},
	"worker": {
		"internal/account", "internal/batch", "internal/config", "internal/daemon", "internal/ledger", "internal/loop",
		"internal/mysql", "internal/order", "internal/payment", "internal/queue", "internal/reconcile",
		"internal/redis", "internal/room", "internal/stock", "internal/telemetry", "internal/till",
	},
	"ctl": {
		"internal/account", "internal/audit", "internal/buckets", "internal/config", "internal/lab", "internal/ledger",
		"internal/mysql", "internal/notice", "internal/order", "internal/plaintext", "internal/queue",
		"internal/reconcile", "internal/redis", "internal/stock", "internal/telemetry", "internal/till",
		"internal/token", "internal/version",
	},

	"internal/access": {
		"internal/config", "internal/loop", "internal/mysql", "internal/notice", "internal/order", "internal/problem",
		"internal/redis", "internal/token",
	},
	"internal/account": {"internal/mysql", "internal/order", "internal/plaintext"},
	"internal/admin":   {"internal/version"},
	"internal/apitest": {
		"internal/apidoc", "internal/catalog", "internal/contract", "internal/front", "internal/ledger",
		"internal/mysql", "internal/order",
		"internal/problem", "internal/queue", "internal/redis", "internal/stock", "internal/token", "localstack",
		"localstack/sqs", "localstack/stacktest",
	},
	"internal/audit": {
		"internal/ledger", "internal/mysql", "internal/order", "internal/queue", "internal/reconcile", "internal/stock",
		"internal/till", "internal/wallet",
	},
	"internal/board": {
		"internal/ledger", "internal/loop", "internal/order", "internal/queue", "internal/redis", "internal/stock",
		"internal/telemetry",
	},
	"internal/buckets": {"internal/ledger", "internal/mysql", "internal/order", "internal/stock"},
	"internal/catalog": {"internal/ledger", "internal/order", "internal/problem", "internal/stock"},
	"internal/daemon": {
		"internal/admin", "internal/board", "internal/config", "internal/ledger", "internal/mysql", "internal/otlp",
		"internal/queue", "internal/redis", "internal/telemetry", "internal/version",
	},
	"internal/lab": {
		"internal/account", "internal/audit", "internal/front/proxy", "internal/ledger", "internal/mysql",
		"internal/order", "internal/payment", "internal/payment/ecpay", "internal/queue", "internal/reconcile",
		"internal/redis", "internal/stock", "internal/till", "internal/token", "internal/wallet",
		"localstack", "localstack/pay", "lua",
	},
	// A wallet pays an order in the transaction that decides it, which is the ledger's.
	"internal/ledger": {
		"internal/failpoint", "internal/mysql", "internal/order", "internal/plaintext", "internal/wallet",
	},
	"internal/notice": {"internal/order", "internal/redis"},
	"internal/order":  {"internal/strictjson"},
	"internal/otlp":   {"internal/telemetry"},
	"internal/pager":  {"internal/order", "internal/token"},

	"internal/payment/alipay": {"internal/order", "internal/payment"},
	"internal/payment/ecpay":  {"internal/payment"},
	"internal/payment/paypal": {"internal/order", "internal/payment"},
	"internal/payment/providers": {
		"internal/config", "internal/payment", "internal/payment/alipay", "internal/payment/ecpay",
		"internal/payment/paypal", "internal/payment/stripe",
	},
	"internal/payment/stripe": {"internal/payment"},

	"internal/problem": {"internal/order", "internal/strictjson"},
	"internal/queue":   {"internal/failpoint", "internal/order"},
	"internal/reconcile": {
		"internal/buckets", "internal/ledger", "internal/mysql", "internal/order", "internal/redis", "internal/stock",
	},
	"internal/redis": {"internal/failpoint", "lua"},
	"internal/room": {
		"internal/failpoint", "internal/mysql", "internal/order", "internal/redis", "internal/stock",
		"internal/token",
	},
	"internal/stock":     {"internal/failpoint", "internal/order", "internal/redis"},
	"internal/telemetry": {"internal/loop", "internal/mysql", "internal/queue", "internal/redis"},
	"internal/token":     {"internal/order"},
	"internal/till": {
		"internal/batch", "internal/config", "internal/failpoint", "internal/ledger", "internal/mysql",
		"internal/order", "internal/payment", "internal/payment/providers", "internal/plaintext", "internal/wallet",
	},
	"internal/wallet": {"internal/mysql", "internal/order", "internal/plaintext"},

	"infra/nginx":          {"internal/front"},
	"internal/front/proxy": {"internal/front", "internal/problem"},

	"localstack":           {"internal/queue", "localstack/sqs"},
	"localstack/pay":       {"internal/order"},
	"localstack/sqs":       {"internal/framing"},
	"localstack/stacktest": {"internal/queue", "localstack", "localstack/sqs"},

	"e2e/faults": {
		"internal/lab", "internal/mysql", "internal/payment/providers", "internal/till", "localstack", "localstack/pay",
		"localstack/sqs",
	},
	"scripts/bench/local-sqs":       {"localstack/sqs"},
	"scripts/bench/textbook-edge":   {"internal/order"},
	"scripts/bench/textbook-worker": {"internal/order"},
}

func TestImports(t *testing.T) {
	imported := map[string]map[string]bool{}
	for _, f := range goFiles(t) {
		for _, spec := range f.syntax.Imports {
			full, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			name, ours := strings.CutPrefix(full, module)
			if !ours || f.isTest() {
				continue
			}

			if !slices.Contains(allowedImports[f.dir()], name) {
				t.Errorf("%s: %s may not import %s: allowedImports in internal/tidy says what it may", f.path, f.dir(),
					name)
			}
			if imported[f.dir()] == nil {
				imported[f.dir()] = map[string]bool{}
			}
			imported[f.dir()][name] = true
		}
	}

	for dir, names := range allowedImports {
		for _, name := range names {
			if !imported[dir][name] {
				t.Errorf("allowedImports lets %s import %s, which it does not: take it out", dir, name)
			}
		}
	}
}

// TestTestsImports holds tests to the packages that their own package may know, or that are made for tests. Those that
// put packages together with others, for a whole of several, are named.
func TestTestsImports(t *testing.T) {
	everyTest := []string{"internal/apidoc", "internal/apitest", "internal/config/configtest", "internal/contract",
		"localstack", "localstack/sqs",
		"localstack/stacktest"}
	more := map[string][]string{
		"cloudformation": {"internal/front", "internal/queue"},
		"ctl":            {"internal/payment"},
		"edge":           {"internal/account", "internal/reconcile"},
		"e2e":            {"infra", "internal/lab"},
		"localstack/pay": {"internal/payment", "internal/payment/ecpay", "internal/payment/providers"},
		"shop":           {"internal/lab", "internal/payment/providers", "internal/strictjson", "localstack/pay"},
		"worker": {
			"internal/notice", "internal/payment/providers", "internal/wallet", "localstack/pay", "lua",
		},

		"internal/access": {"internal/account"},
		"internal/apidoc": {"internal/front", "internal/problem"},
		"internal/board":  {"internal/mysql"},
		"internal/room":   {"internal/ledger"},
		"internal/stock":  {"internal/notice", "lua"},
		"internal/mysql":  {"internal/account", "internal/ledger", "internal/order"},

		"internal/payment/stripe": {"internal/order"},
	}

	for _, f := range goFiles(t) {
		if !f.isTest() {
			continue
		}
		for _, spec := range f.syntax.Imports {
			full, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			name, ours := strings.CutPrefix(full, module)
			if !ours || name == f.dir() {
				continue
			}
			if !slices.Contains(slices.Concat(everyTest, more[f.dir()], allowedImports[f.dir()]), name) {
				t.Errorf("%s: tests of %s may not import %s", f.path, f.dir(), name)
			}
		}
	}
}

// TestPrograms looks at what is linked into the release of what is shipped: nothing of the local stack, of what starts
// and loads one, of the tests, or of another program; and into the edge nothing of accounts, whose hashes are slow.
func TestPrograms(t *testing.T) {
	notShipped := []string{
		"internal/apitest", "internal/contract", "internal/config/configtest", "internal/lab", "internal/tidy",
	}
	never := map[string][]string{
		"edge":   {"internal/account", "internal/password", "golang.org/x/crypto/argon2"},
		"shop":   nil,
		"worker": {"internal/password", "internal/access"},
		"ctl":    {"internal/access"},
	}

	for program, others := range never {
		list := exec.Command("go", "list", "-tags", "release", "-deps", "./"+program)
		list.Dir = root
		out, err := list.CombinedOutput()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, out)
		}

		for _, full := range strings.Fields(string(out)) {
			name, ours := strings.CutPrefix(full, module)
			shipped := !ours || name == program || name == "lua" || strings.HasPrefix(name, "internal/")
			if !shipped || slices.Contains(notShipped, name) || slices.Contains(others, name) || full == "testing" {
				t.Errorf("%s is linked into the release of %s", name, program)
			}
		}
	}
}
