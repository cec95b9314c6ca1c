# Every target is a command that a person could type; `make help` lists them.
SHELL := bash
MAKEFLAGS += --no-print-directory

# What `elector --version` says, the same in every clone of a commit. Give it on the command line to build a release from an archive.
VERSION ?= $(or $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null),dev)
# How long `make soak` goes on.
SOAK ?= 10m
# How long `make explore` goes on.
EXPLORE ?= 10m
# What `make bench` is told besides: -short, -check.
BENCH ?=
# What `make mutate` is told besides: -sample 100, -file candidate, -o FILE.
MUTATE ?=
# What `make image` makes: IMAGE_REGISTRY/elector:IMAGE_TAG and IMAGE_REGISTRY/elector-webhook:IMAGE_TAG, in IMAGE_DIR.
IMAGE_REGISTRY ?= ghcr.io/elector-io
IMAGE_TAG ?= $(VERSION)
IMAGE_ARCHS ?= amd64 arm64
IMAGE_DIR ?= bin/images
# What gives an archive to the Docker engine, if one answers.
IMAGE_LOAD ?= docker load -q -i
# For which systems `make plugin` makes it: those of .krew.yaml.
PLUGIN_PLATFORMS ?= linux-amd64 linux-arm64 darwin-amd64 darwin-arm64 windows-amd64
# Where programs are kept that are compiled once for all checkouts: the embedded cluster's, and the linter.
ELECTOR_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/elector
export ELECTOR_CACHE

SCRIPTS := .ci/run $(wildcard test/e2e/kind/*.sh) $(addprefix test/e2e/kind/,runc-without-sys-resource node/configure node/import node/pod-network)
GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := $(ELECTOR_CACHE)/golangci-lint-$(GOLANGCI_LINT_VERSION)/golangci-lint

# Static binaries. The version is VERSION alone, so that a commit elsewhere does not link them anew for its hash.
GO_BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false

# The tag incluster leaves out of the sidecar what only a kubeconfig needs, a quarter of it; the other programs do not know it.
LDFLAGS := -s -w -X main.version=$(VERSION)

# $(call image,NAME,PROGRAM): the same commit and version of Go make the same image, byte by byte. The time in it is the commit's.
comma := ,

define image
go run ./internal/image -o $(IMAGE_DIR)/$(1).tar -name $(IMAGE_REGISTRY)/$(1):$(IMAGE_TAG) \
	-created $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),0) \
	-label org.opencontainers.image.title=$(1) \
	-label org.opencontainers.image.source=https://github.com/elector-io/elector \
	-label org.opencontainers.image.version=$(VERSION) \
	-label org.opencontainers.image.revision=$(shell git rev-parse HEAD 2>/dev/null) \
	-label org.opencontainers.image.licenses=Apache-2.0 \
	$(foreach arch,$(IMAGE_ARCHS),$(arch)=$(IMAGE_DIR)/$(arch)/$(2)$(foreach beside,$(3),$(comma)$(IMAGE_DIR)/$(arch)/$(beside))) && \
if docker info >/dev/null 2>&1; then $(IMAGE_LOAD) $(IMAGE_DIR)/$(1).tar; fi
endef

.DEFAULT_GOAL := help
.PHONY: help build image plugin test mesh examples e2e demo cluster cluster-down bench soak mutate explore lint bin/cluster bin/witness

help: ## List the targets.
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

build: ## Build bin/elector (the sidecar), bin/webhook (the manager) and bin/kubectl-elector (the plugin), static; bin/incluster has what the sidecar's image has.
	$(GO_BUILD) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/elector ./cmd/webhook ./cmd/kubectl-elector
	$(GO_BUILD) -tags incluster -ldflags '$(LDFLAGS)' -o bin/incluster/ ./cmd/elector ./cmd/gate

image: ## Make the images for amd64 and arm64, without a registry: archives in bin/images, and in the Docker engine if one answers.
	@for arch in $(IMAGE_ARCHS); do GOOS=linux GOARCH=$$arch $(GO_BUILD) -tags incluster -ldflags '$(LDFLAGS)' -o $(IMAGE_DIR)/$$arch/ ./cmd/elector ./cmd/webhook ./cmd/gate || exit; done
	@$(call image,elector,elector,gate)
	@$(call image,elector-webhook,webhook)

plugin: ## Make the archives of kubectl-elector that krew installs, in bin/plugin.
	@mkdir -p bin/plugin
	@for platform in $(PLUGIN_PLATFORMS); do \
		os=$${platform%-*} program=kubectl-elector; if [ $$os = windows ]; then program=kubectl-elector.exe; fi; \
		GOOS=$$os GOARCH=$${platform#*-} $(GO_BUILD) -ldflags '$(LDFLAGS)' -o bin/plugin/$$platform/$$program ./cmd/kubectl-elector && \
		cp LICENSE bin/plugin/$$platform/ && \
		tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),0) \
			-C bin/plugin/$$platform -cf - . | gzip -n > bin/plugin/kubectl-elector-$$platform.tar.gz || exit; \
	done

test: build bin/cluster ## Run the unit tests and the integration tests on the embedded cluster.
	@bin/cluster bin-path kubectl >/dev/null # compiles the cluster's programs, if that has not been done
	go test ./...
	go test -race ./elector/... ./inject ./cmd/... ./test/sim
	cd test/cluster && go test ./...
	cd test/bench/injectors/ours && go vet ./... && go test ../subject
	cd test/chart/promql && go test -count 1 ./...
	go test -tags integration -ldflags '-s -w' -count 1 -parallel 6 -timeout 10m ./test/integration/... # stack traces need no DWARF

mesh: build bin/cluster ## Run the tests beside Istio's own injector, and Linkerd's way of inserting; compiles parts of istiod.
	cd test/mesh && go test -vet off -count 1 -timeout 10m . # vet would read all that istiod is made of

examples: ## Apply the manifests of examples/ on the embedded cluster, and run its programs; needs PostgreSQL, psycopg, Node, Java, its JDBC driver.
	EXAMPLES=all go test -tags integration -count 1 -timeout 10m ./test/integration/examples/...

e2e: bin/cluster ## Run the end-to-end tests on a kind cluster; E2E_RUN=NAME for one of them, E2E_KEEP=1 to keep the cluster.
	@test/e2e/kind/run.sh

demo: build bin/cluster ## Show the main job on the embedded cluster: election, handover, takeover, in both modes.
	@go build -trimpath -buildvcs=false -o bin/demo ./test/demo
	@bin/demo

cluster: build bin/cluster ## Start the embedded cluster with elector installed and keep it running; kubeconfig in .cluster/kubeconfig.
	@bin/cluster up --dir .cluster --install --detach

cluster-down: bin/cluster ## Stop what `make cluster` started.
	@bin/cluster down --dir .cluster

bench: build bin/cluster ## Measure elector beside client-go, the manager, and other injectors, and write docs/benchmarks*.md; BENCH=-short for a glance.
	go run ./test/bench $(BENCH)
	go run ./test/bench/webhook $(BENCH)
	go run ./test/bench/failover $(BENCH)
	go run ./test/bench/injectors $(BENCH)

soak: ## Break the election at random in the simulation for SOAK (10m).
	go test ./test/sim -run TestNeverTwoLeaders -soak $(SOAK) -timeout 0 -v

explore: ## Try what may happen to candidates in every order, deeper and deeper, for EXPLORE (10m).
	go test ./elector -run TestExplore -explore $(EXPLORE) -timeout 0 -v

mutate: ## Change the election's code in small ways, one at a time, and see that the tests notice; MUTATE='-sample 100' for some of them.
	@go run ./test/mutate -check $(MUTATE)

lint: $(GOLANGCI_LINT) ## Check the style of the modules, and of the scripts with shellcheck, if that is installed.
	$(GOLANGCI_LINT) run ./...
	cd test/cluster && $(GOLANGCI_LINT) run ./...
	cd test/bench/injectors/subject && $(GOLANGCI_LINT) run ./...
	cd test/bench/injectors/ours && $(GOLANGCI_LINT) run ./...
	cd test/e2e/kind/node && $(GOLANGCI_LINT) run ./...
	cd test/chart/promql && $(GOLANGCI_LINT) run ./...
	cd test/s3 && $(GOLANGCI_LINT) run ./...
	cd examples/fencing/go && $(GOLANGCI_LINT) run ./...
	@if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS); else echo 'There is no shellcheck, so the scripts were not checked.'; fi

# The embedded cluster is a Go module of its own: k8s.io/kubernetes stays out of elector's.
bin/cluster:
	cd test/cluster && $(GO_BUILD) -o ../../bin/cluster .

# The application in the pods of tests.
bin/witness:
	$(GO_BUILD) -o bin/witness ./test/witness/app

$(GOLANGCI_LINT):
	GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
