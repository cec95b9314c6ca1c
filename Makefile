# Every target is a command that a person could type; `make help` lists them.
SHELL := bash
MAKEFLAGS += --no-print-directory

# What `elector --version` says. Give it on the command line to build a release from an archive.
VERSION ?= $(or $(shell git describe --tags --always --dirty 2>/dev/null),dev)
# How long `make soak` goes on.
SOAK ?= 10m
# What `make bench` is told besides: -short, -check.
BENCH ?=
# Where programs are kept that are compiled once for all checkouts: the embedded cluster's, and the linter.
ELECTOR_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/elector
export ELECTOR_CACHE

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := $(ELECTOR_CACHE)/golangci-lint-$(GOLANGCI_LINT_VERSION)/golangci-lint

# Static binaries. The version is VERSION alone, so that a commit elsewhere does not link them anew for its hash.
GO_BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false

.DEFAULT_GOAL := help
.PHONY: help build test demo cluster cluster-down bench soak lint bin/cluster

help: ## List the targets.
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

build: ## Build bin/elector (the sidecar) and bin/webhook (the manager), static.
	$(GO_BUILD) -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/elector ./cmd/webhook

test: build bin/cluster ## Run the unit tests and the integration tests on the embedded cluster.
	@bin/cluster bin-path kubectl >/dev/null # compiles the cluster's programs, if that has not been done
	go test ./...
	go test -race ./elector ./inject
	cd test/cluster && go test ./...
	go test -tags integration -count 1 -parallel 6 -timeout 10m ./test/integration/...

demo: build bin/cluster ## Show the main job on the embedded cluster: election, handover, takeover, in both modes.
	@go build -trimpath -buildvcs=false -o bin/demo ./test/demo
	@bin/demo

cluster: build bin/cluster ## Start the embedded cluster with elector installed and keep it running; kubeconfig in .cluster/kubeconfig.
	@bin/cluster up --dir .cluster --install --detach

cluster-down: bin/cluster ## Stop what `make cluster` started.
	@bin/cluster down --dir .cluster

bench: build bin/cluster ## Measure elector beside client-go on the embedded cluster and write docs/benchmarks.md; BENCH=-short for a glance.
	go run ./test/bench $(BENCH)

soak: ## Break the election at random in the simulation for SOAK (10m).
	go test ./test/sim -run TestNeverTwoLeaders -soak $(SOAK) -timeout 0 -v

lint: $(GOLANGCI_LINT) ## Check the style of both modules.
	$(GOLANGCI_LINT) run ./...
	cd test/cluster && $(GOLANGCI_LINT) run ./...

# The embedded cluster is a Go module of its own: k8s.io/kubernetes stays out of elector's.
bin/cluster:
	cd test/cluster && $(GO_BUILD) -o ../../bin/cluster .

$(GOLANGCI_LINT):
	GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
