# gatehouse. `make` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The tools have a module file of their own, so that go.mod holds only what the application needs.
TOOL := go tool -modfile=tools/go.mod
SWAG := $(TOOL) swag init --quiet --generalInfo main.go --dir ./ --exclude bench,e2e,proof,tmp --parseInternal --outputTypes go,json,yaml

# The race detector does not look into code that takes long to compile or to run so, and shares
# nothing: hashes, Lua, the generated builders of commands, and SQLite, which is translated from C:
# in what belongs to it, checking each pointer would be a third of the work. gin needs MessagePack,
# long to compile, for nothing of ours; default.pgo would have all compiled once more.
# In GOFLAGS, the go commands that tests run find all this, too.
test picture proof mutate: export GOFLAGS := $(GOFLAGS) -race -ldflags=-w -buildvcs=false \
	-tags=nomsgpack -pgo=off -gcflags=modernc.org/...=-d=checkptr=0 -gcflags=modernc.org/sqlite/lib=-race=false \
	-gcflags=golang.org/x/crypto/...=-race=false -gcflags=github.com/yuin/gopher-lua/...=-race=false \
	-gcflags=github.com/redis/rueidis/internal/cmds=-race=false

# The race detector sleeps a second at the end of each program if not told otherwise.
test mutate: export GORACE := atexit_sleep_ms=50 $(GORACE)

# Two packages at a time, the longest first, and four tests of each: that keeps two processors busy.
# More would only disturb each other.
SCHEDULE := -p=2 -parallel=4
PACKAGES := ./e2e ./services/lock ./internal/app ./services/session ./services/store ./services/ratelimit ./...

FUZZTIME ?= 10s

.PHONY: help run dev build test requirements lint fmt docs docs-check picture bench bench-http profile proof mutate fuzz tidy clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Run gatehouse with nothing installed: SQLite file, Redis in the process
	go run .

dev: ## The same, built again and restarted whenever a file changes
	$(TOOL) air

build: ## Build bin/gatehouse
	CGO_ENABLED=0 go build -trimpath -tags=nomsgpack -o bin/gatehouse .

test: ## Run all tests with the race detector; installs what they need on Debian
	@scripts/test $(SCHEDULE) $(TESTARGS) $(PACKAGES)

requirements: ## Install what the tests need (Redis, PostgreSQL, Chromium) if it is missing
	@scripts/requirements >/dev/null

lint: ## Check formatting and golangci-lint, which has go vet
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "run make fmt, gofmt would change:" >&2; echo "$$unformatted" >&2; exit 1; fi
	$(TOOL) golangci-lint run ./...

fmt: ## Format the code
	gofmt -w .

docs: ## Write docs/ from the annotations of the routes
	$(SWAG) --output docs

docs-check: ## Check that docs/ is up to date
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(SWAG) --output "$$fresh/docs"; \
	diff -ru docs "$$fresh/docs" || { echo "docs/ is out of date: run make docs" >&2; exit 1; }

picture: requirements ## Take the picture of the page that README.md shows
	GATEHOUSE_PICTURE=$(CURDIR)/.github/dashboard.png go test -count=1 -run '^TestPicture$$' ./e2e

# No package is named, or go test would print nothing but ok.
bench: ## Compare with other libraries side by side and print one table; wants a quiet machine
	cd bench && go test -count=1 -timeout 30m

bench-http: ## Compare whole requests over HTTP with another stack, with the least there can be, and when full; 10 minutes, wants a quiet machine
	cd bench && GATEHOUSE_BENCH_HTTP=1 go test -count=1 -timeout 30m -run '^(TestWholeRequests|TestGrowth)$$'

profile: ## Write default.pgo anew: where the program spends its time under load, for go build to make it faster
	cd bench && GATEHOUSE_PROFILE=$(CURDIR)/default.pgo go test -count=1 -timeout 30m -run '^TestProfile$$'

proof: ## Run the proofs in full: histories, faults, topologies, no lost update, no lost write, 10^7 decisions, every look of every page; takes hours, wants a quiet machine
	GATEHOUSE_PROOF=1 go test -v -count=1 -timeout 2h -run Proof ./services/lock ./services/store ./proof
	GATEHOUSE_PROOF=1 go test -count=1 -timeout 4h -parallel 4 -v -run Proof ./services/session
	GATEHOUSE_PROOF=1 go test -race=false -v -count=1 -timeout 2h -run Proof ./services/ratelimit
	GATEHOUSE_PROOF=1 go test -v -count=1 -run '^(TestBrowser|TestEditing)$$' ./e2e

mutate: requirements ## Break, one after the other, the lines that carry the promises of the documents: named tests must fail
	@scripts/mutate

fuzz: ## Run every fuzz test for FUZZTIME (10s) each
	@grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's|(.*)/[^/]*:func (.*)|\1 \2|' | \
	while read -r folder name; do go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$folder" </dev/null; done

tidy: ## Tidy the module files
	go mod tidy
	cd tools && go mod tidy
	cd bench && go mod tidy

clean: ## Remove what was built; the database stays
	rm -rf bin tmp
