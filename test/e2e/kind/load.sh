#!/usr/bin/env bash
# Makes elector's images of this checkout, and puts them on every node of the cluster with the tag e2e. Pods that run go on with what
# they started from. kubectl's plugin comes into .e2e/bin.
. "$(dirname "$0")/lib.sh"

images() {
	local arch
	arch=$(go env GOARCH)
	cd "$repo"
	make image IMAGE_TAG=e2e IMAGE_ARCHS="$arch" IMAGE_DIR=.e2e/images IMAGE_LOAD=: # the nodes have a containerd each
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o .e2e/bin/ ./cmd/kubectl-elector
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o .e2e/images/e2e-app ./test/witness/app
	go run ./internal/image -o .e2e/images/e2e-app.tar -name ghcr.io/elector-io/e2e-app:e2e -created 0 "$arch=.e2e/images/e2e-app"
}

load() {
	local node archive pids=() pid
	for node in $(kind get nodes --name "$cluster"); do
		for archive in "$e2e"/images/*.tar; do
			docker exec -i "$node" ctr -n k8s.io images import --digests --snapshotter overlayfs - <"$archive"
		done &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid"; done
}

clients
step 'images made' images
step "images on the nodes of $cluster" load
