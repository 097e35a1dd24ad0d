# Every target installs what it needs, and leaves nothing running.

.DEFAULT_GOAL := help
.PHONY: help demo board up test faults drill bench load-k6 load-locust model check gofmt lint generate build deps

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: deps ## run a whole flash sale on a local stack, audit it, and show the result
	@go run ./ctl demo

board: deps ## a sale of a minute and a half to watch live in a browser; it says where, and stays until Ctrl-C
	@go run ./ctl demo --units 12000 --buyers 18000 --rate 200 --hold

up: deps ## keep the same stack running with a few products until Ctrl-C
	@go run ./ctl up

test: deps lint ## unit, integration and end-to-end tests on real servers, with the race detector
	@scripts/install-deps prometheus
	@scripts/install-deps chromium
	@scripts/install-deps locust
	@scripts/install-deps nginx
	@scripts/install-deps openapi
	go test -race -vet=off -timeout 8m ./...

model: ## check the protocol's model exhaustively with spin
	@scripts/model

faults: deps model ## the fault matrix: a sale with a fault in its middle, for each fault; report in .local/faults.html
	@go run ./e2e/faults $(ARGS)

bench: deps ## measure how fast it is against baselines, in 6 minutes; report in .local/bench.html
	@go run ./ctl bench $(ARGS)

load-k6: deps ## load a local stack with k6 and audit it: SCENARIO="smoke flash-sale soak retry-storm bots" picks
	@scripts/install-deps k6
	@go run ./ctl run -- scripts/load/k6/run $(or $(SCENARIO),smoke flash-sale)

load-locust: deps ## load a local stack with 1,000 users of Locust and audit it; ARGS="--run-time 5m" is for Locust
	@scripts/install-deps locust
	@go run ./ctl run -- locust --config scripts/load/locust/locust.conf $(ARGS)

drill: deps ## break the program on purpose, in one way after another: each time a test must notice
	@go run ./scripts/drill

# Without cgo, as all programs are built but those of the tests with the race detector: so that the libraries are compiled
# for one more configuration, and not for two.
check lint build: export CGO_ENABLED = 0

check: gofmt ## what can be said in half a minute: build, gofmt, go vet, staticcheck, and the tests that start nothing
	go build ./...
	go vet ./...
	go tool staticcheck ./...
	@go test -vet=off $$($(QUICK))

# The packages under internal whose tests start neither a server nor a compiler, and the test of the dashboards.
QUICK = go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.TestImports}} {{.XTestImports}}{{end}}' \
	./internal/... ./infra/grafana | awk '!/\/localstack/ && !/internal\/failpoint / { print $$1 }'

gofmt:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi

lint: gofmt ## gofmt, go vet, staticcheck, actionlint
	go vet ./...
	go tool staticcheck ./...
	go tool staticcheck -tags failpoints ./internal/failpoint
	go tool actionlint -shellcheck= -pyflakes=

generate: deps ## write the files that are made from others: the contract and its page at /docs, Grafana's dashboards, nginx's configuration
	go test ./internal/apidoc -run '^TestGenerated$$' -update
	go run ./infra/grafana
	go run ./infra/nginx

build: ## build edge, shop, worker and ctl into bin/
	go build -o bin/ ./edge ./shop ./worker ./ctl

deps: # install redis-server and mariadb-server if they are missing
	@scripts/install-deps
