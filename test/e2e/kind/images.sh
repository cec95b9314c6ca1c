#!/usr/bin/env bash
# Makes elector's images of this checkout, that of the tests' application, and kubectl's plugin, which comes into .e2e/bin. It needs no cluster.
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

step 'images made' images
