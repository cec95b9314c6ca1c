#!/usr/bin/env bash
# Removes the cluster that up.sh made. The Docker engine, and the node image in it, stay for the next time.
. "$(dirname "$0")/lib.sh"

clients
step "cluster $cluster removed" kind delete cluster --name "$cluster"
