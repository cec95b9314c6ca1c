#!/usr/bin/env bash
# Makes elector's images of this checkout, and puts them on every node of the cluster with the tag e2e. Pods that run go on with what
# they started from. E2E_IMAGES=made takes those that images.sh has just made.
. "$(dirname "$0")/lib.sh"

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
[ "${E2E_IMAGES:-}" = made ] || "$here/images.sh"
step "images on the nodes of $cluster" load
