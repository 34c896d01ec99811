# ffpod. `make` alone prints this file's targets. The two that matter are demo and
# test; both work on a fresh Debian or Ubuntu machine as root with Go, git and make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# No target is a file.
.PHONY: $(shell grep -oE '^[a-z][a-z0-9-]*:' $(firstword $(MAKEFILE_LIST)) | tr -d :)
MAKEFLAGS += --no-print-directory

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
# The cluster's binaries, images and test media live here, outside the work tree.
export FFPOD_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ffpod
# Your own cluster when KUBECONFIG is set, else the local one.
LOCAL_KUBECONFIG := /var/lib/ffpod-cluster/kubeconfig
OWN_CLUSTER := $(filter-out $(LOCAL_KUBECONFIG),$(KUBECONFIG))
CLUSTER_CONFIG := $(or $(OWN_CLUSTER),$(LOCAL_KUBECONFIG))
FOCUS ?=
GINKGO := go tool ginkgo --keep-going --timeout=40m --output-interceptor-mode=none --silence-skips $(if $(FOCUS),--focus='$(FOCUS)')

help: ## Print the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ The two commands
demo: cluster images ## The main job, visibly, on a real cluster: first time about 10 min, then half a minute
	@KUBECONFIG=$(CLUSTER_CONFIG) go run ./test/demo

test: unit cluster images integration e2e gpu stack data skew chaos ## Prove everything: first time about 45 min, then 35 min

##@ Parts
build: ## Every binary, into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

build-arm64: ## Compile every binary for arm64 too
	CGO_ENABLED=0 GOARCH=arm64 go build -trimpath -tags grpcnotrace -ldflags '$(LDFLAGS)' -o /dev/null ./cmd/...

# RACE=-race runs those of the programs under the race detector; they run without it,
# and whole, in integration.
unit: ## Fast tests, no root and no cluster: 2 min
	go vet ./...
	go test -short $(RACE) ./cmd/... ./podexec/... ./scheduler/...
	go test -short ./images/... ./kustomize/... ./test/docs ./test/house ./test/manifests ./test/chaos ./test/postgres ./test/simulate

race: ## The fast tests under the race detector
	go test -short -race ./cmd/... ./podexec/... ./scheduler/...

# Go before 1.27 may call the end of the time a failure (go.dev/issue/75804); one
# that an input made is told with that input.
FUZZTIME ?= 20s
fuzz: ## Every fuzz target, for FUZZTIME=20s each; what they found before runs with the unit tests
	@mkdir -p out; grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z]*' cmd podexec scheduler | sed 's|/[^/]*:func | |' | while read -r dir target; do \
	  echo "$$dir $$target"; \
	  go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$dir </dev/null >out/fuzz.log 2>&1 || \
	    grep -qx '    context deadline exceeded' out/fuzz.log || { cat out/fuzz.log; exit 1; }; tail -n 1 out/fuzz.log; \
	done

integration: ## Every two components together; caches of file systems; scheduler packages, RBAC and policies against the cluster
	go test -count=1 ./images/... ./podexec/... ./cmd/... ./test/manifests
	$(GINKGO) ./test/nfslike
	KUBECONFIG=$(CLUSTER_CONFIG) go test -tags cluster -count=1 ./cmd/scheduler ./scheduler/...
	KUBECONFIG=$(CLUSTER_CONFIG) $(GINKGO) ./test/policy

e2e: ## Everything end to end, as local, warm and Job. FOCUS='regexp' selects specs
	KUBECONFIG=$(CLUSTER_CONFIG) $(GINKGO) ./test/e2e

gpu: ## Placement by hardware: four classes with pretended GPUs, exhausted, lost, paused, on standby, scaled, rewritten, retold: 5 min
	KUBECONFIG=$(LOCAL_KUBECONFIG) $(GINKGO) ./test/gpu

stack: previous ## Jellyfin's deployment, with a simulated server in its place: play, restart, cut the power, upgrade, remove: 4 min
	KUBECONFIG=$(CLUSTER_CONFIG) $(GINKGO) ./test/stack

data: build ## Databases, backups and restores, and the production overlays, as pods, by the commands of docs/: 6 min
	@go run ./images/build -o out/images test/data/postgres
	KUBECONFIG=$(LOCAL_KUBECONFIG) $(GINKGO) ./test/data

# Chaos breaks the parts of a cluster: only the local one's, which then has two nodes.
TWO_NODES = go run ./test/cluster up --nodes 2 || { go run ./test/cluster down && go run ./test/cluster up --nodes 2; }
SEED ?= 1
CHAOS := go run ./test/chaos -seed $(SEED)

chaos: ## Break everything, 48 times, and judge every session: 5 min. SEED=n for another plan
	@$(TWO_NODES)
	@$(MAKE) images OWN_CLUSTER=
	$(CHAOS) -faults 48 -o out/chaos.json

chaos-long: ## The same with 512 faults: 50 min
	@$(TWO_NODES)
	@$(MAKE) images OWN_CLUSTER=
	$(CHAOS) -faults 512 -o out/chaos-long.json

jellyfin: ## What Jellyfin does with ffmpeg and sees of it, on this machine and in pods: 30 min
	KUBECONFIG=$(CLUSTER_CONFIG) $(GINKGO) ./test/jellyfin

previous: ## The previous release, built from its source, as an image
	@rm -rf $(FFPOD_CACHE)/previous && mkdir -p $(FFPOD_CACHE)/previous
	@tar -xzf test/skew/testdata/previous.tar.gz -C $(FFPOD_CACHE)/previous
	@go run ./images/build -C $(FFPOD_CACHE)/previous -tag previous -o out/previous ffpod
	@$(if $(OWN_CLUSTER),go run ./test/demo -images out/previous,go run ./test/cluster load out/previous/ffpod.tar)

skew: previous ## The previous release's shim, scheduler and workers with today's, every combination: 2 min
	KUBECONFIG=$(CLUSTER_CONFIG) $(GINKGO) ./test/skew

soak: ## What takes longer than a test may: ten minutes of silence, three of a reader that does not read
	E2E_SOAK=1 KUBECONFIG=$(CLUSTER_CONFIG) $(GINKGO) --focus='For long' --timeout=60m ./test/e2e

bench: cluster images ## Figures beside their baselines, into out/bench.json: 5 min
	@mkdir -p out
	@KUBECONFIG=$(CLUSTER_CONFIG) go run ./test/demo -deploy
	KUBECONFIG=$(CLUSTER_CONFIG) go run ./test/bench -o out/bench.json

simulate: ## An evening on 1,000 simulated workers, ours against others; writes its section of docs/scaling.md: 4 min. SEED=n
	go run ./test/simulate -seed $(SEED) -o out/simulate.json -docs docs

lint: ## staticcheck and gofmt
	@gofmt -l . | (! grep .)
	go tool staticcheck ./...

generate: ## Generated code and docs/configuration.md
	go run ./test/protogen podexec/wire wire.proto
	gofmt -w podexec/wire
	go generate ./kustomize/settings

verify: generate lint build-arm64 ## Generated code is current, lint is clean, arm64 compiles
	git diff --exit-code podexec/wire docs/configuration.md

##@ The local cluster
cluster: ## A real Kubernetes node on this machine (nothing to do when KUBECONFIG is yours)
	@$(if $(OWN_CLUSTER),echo "cluster: yours: $(OWN_CLUSTER)",go run ./test/cluster up)

cluster-down: ## Remove it: processes, mounts, namespaces, cgroups, links
	@go run ./test/cluster down

demo-down: ## Remove the local cluster; of yours the demo, not kustomize/cluster, which others may use
	@$(if $(OWN_CLUSTER),kubectl delete --ignore-not-found namespace/ffpod-demo clusterrolebinding/ffpod-demo-token-review,go run ./test/cluster down)

images: ## Both images without Docker, into out/images, and into the local cluster
	@go run ./images/build -o out/images
	@$(if $(OWN_CLUSTER),go run ./test/demo -images out/images,go run ./test/cluster load out/images/ffpod.tar out/images/worker.tar)

release: ## Everything of VERSION=v0.x.y into out/release: docs/release.md. OFFLINE=1: no vulnerability gate
	go run ./images/release build -o out/release/$(VERSION) $(if $(OFFLINE),-offline) $(VERSION) $(WORKERS)

clean: ## What make produced in the work tree
	rm -rf bin out
