#!/usr/bin/env bash
# Keeps what a failed run leaves to look at, below .e2e/logs/cluster: the nodes' journals, the logs of all containers, and what the API
# server says of everything. It takes what it gets: a cluster that failed may not answer.
. "$(dirname "$0")/lib.sh"

collect() {
	local to=$e2e/logs/cluster kind
	rm -rf "$to"
	mkdir -p "$to"
	timeout 180 kind export logs --name "$cluster" "$to" || true
	for kind in nodes pods leases configmaps deployments mutatingwebhookconfigurations; do
		timeout 20 kubectl get "$kind" -A -o yaml >"$to/$kind.yaml" || true
	done
	timeout 20 kubectl events -A >"$to/events.txt" || true
}

clients
step "logs kept in .e2e/logs/cluster" collect
