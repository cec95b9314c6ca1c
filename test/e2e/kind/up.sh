#!/usr/bin/env bash
# Gives a kind cluster of one control plane and two workers, with elector's images on every node. Its kubeconfig is .e2e/kubeconfig.
#
# E2E_CLUSTER is its name (elector-e2e). E2E_KEEP=1 keeps a cluster of this name that answers; otherwise it is made anew.
. "$(dirname "$0")/lib.sh"

create() {
	local kubelet=()
	kind delete cluster --name "$cluster"
	if $made; then
		kubelet+=('localStorageCapacityIsolation: false') # the machine's disk is not the node's to watch
		if [ "$(docker info --format '{{.CgroupVersion}}')" = 1 ]; then
			kubelet+=('failCgroupV1: false' 'cgroupDriver: cgroupfs')
		fi
	fi
	kind create cluster --name "$cluster" --image "$image" --config - <<-YAML
		kind: Cluster
		apiVersion: kind.x-k8s.io/v1alpha4
		networking: {disableDefaultCNI: $made}
		nodes: [{role: control-plane}, {role: worker}, {role: worker}]
		kubeadmConfigPatches:
		- |
		  kind: KubeletConfiguration
		  apiVersion: kubelet.config.k8s.io/v1beta1
		$(printf '  %s\n' "${kubelet[@]}")
	YAML
}

# The image that is made here brings a program that needs to know which node has which part of the pod network.
network() {
	local nodes node
	nodes=$(kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name} {.spec.podCIDR}{"\n"}{end}')
	for node in $(kind get nodes --name "$cluster"); do
		docker exec -i "$node" sh -c 'cat >/etc/pod-network' <<<"$nodes"
	done
}

ready() {
	kubectl wait --for condition=Ready nodes --all --timeout 120s
	kubectl -n kube-system rollout status deployment coredns --timeout 120s
}

"$here/docker.sh"
clients
# To make a cluster is to wait, most of the time.
"$here/images.sh" &
images=$!
trap 'wait "$images" || :' EXIT
if [ "${E2E_KEEP:-}" = 1 ] && kubectl version --request-timeout 5s >/dev/null 2>&1 && kind get clusters 2>/dev/null | grep -qx "$cluster"; then
	step "cluster $cluster answers, kept" ready
else
	image=$("$here/node-image.sh")
	made=false
	case $image in elector-e2e-node:*) made=true ;; esac
	step "cluster $cluster created" create
	if $made; then step 'pod network' network; fi
	step 'nodes and CoreDNS ready' ready
fi
wait "$images"
trap - EXIT
E2E_IMAGES=made "$here/load.sh"
