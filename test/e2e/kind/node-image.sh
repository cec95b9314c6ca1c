#!/usr/bin/env bash
# Prints the name of an image for kind's nodes, which the Docker engine has then: kind's own where it can be pulled, else one made here
# from Debian packages and Go modules. The name of the latter is that of its content: made once, it is found again.
#
# E2E_NODE_IMAGE is an image to use instead; "made" makes one also where kind's own could be pulled.
. "$(dirname "$0")/lib.sh"
exec 3>&1 1>&2 # what is told on the way is not the answer

suite=bookworm
packages=bash,ca-certificates,conntrack,containernetworking-plugins,curl,ebtables,ethtool,iproute2,iptables,jq,kmod,libseccomp2,mount,nftables,procps,socat,systemd,systemd-sysv,util-linux

has() {
	docker image inspect "$1" >/dev/null 2>&1
}

kubernetes() {
	"$repo/bin/cluster" bin-path "$1"
}

# What this machine does not give to nodes.
restricted() {
	if [ "$(docker info --format '{{.CgroupVersion}}')" = 1 ]; then echo cgroup2; fi
	if docker info --format '{{.DefaultRuntime}}' | grep -q without-sys-resource; then echo sys-resource; fi
}

recipe() {
	cd "$here"
	echo "$suite $packages $(node_hash)"
	realpath --relative-to "$cache" "$(kubernetes kubelet)" "$(kubernetes etcd)" # named by their content, below the cache
	restricted
	cat node-image.sh node/{Dockerfile,configure,import,pod-network,pod-network.service}
}

# rootfs makes a Debian in a tar file.
rootfs() {
	on_debian_as_root || die 'A node image can be made only on Debian as root, and kindest/node cannot be pulled: set E2E_NODE_IMAGE to an image that can.'
	debian debootstrap
	work=$(mktemp -d "$cache/debian.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	debootstrap --variant=minbase --include="$packages" "$suite" "$work/root"
	rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/* "$work"/root/usr/share/{doc,man,locale} "$work"/root/dev/*
	tar -C "$work/root" -cf "$work/tar" .
	mv "$work/tar" "$1"
}

runc() {
	[ -x "$(compiled runc)" ] || debian gcc libc6-dev libseccomp-dev pkg-config
	compile runc
}

# context DIR DEBIAN lays out what node/Dockerfile needs. Files are linked, where that is possible, rather than copied.
context() {
	local dir=$1 files reference program
	files=$(cd "$here/node" && go mod download -json sigs.k8s.io/kind | sed -nE 's/^\s*"Dir": "(.*)",?$/\1/p')/images/base/files
	mkdir -p "$dir"/{kind,images,bin,local/{bin,sbin,share}}
	place "$2" "$dir/debian.tar"
	cp -rL --no-preserve=mode "$files/." "$dir/kind"
	chmod 755 "$dir"/kind/usr/local/bin/* "$dir"/kind/kind/bin/*
	cp "$here"/node/{Dockerfile,configure} "$dir"
	cp "$here/node/import" "$dir/images"
	cp "$here/node/pod-network" "$dir/local/bin"
	cp "$here/node/pod-network.service" "$dir/kind/etc/systemd/system"
	for program in containerd containerd-shim-runc-v2 ctr crictl; do place "$(compiled $program)" "$dir/local/bin/$program"; done
	place "$(compiled runc)" "$dir/local/sbin/runc"
	for program in kubeadm kubelet kubectl; do place "$(kubernetes $program)" "$dir/bin/$program"; done
	"$(kubernetes kubeadm)" version -o short | tr -d '\n' >"$dir/version"
	"$(kubernetes kubeadm)" config images list --kubernetes-version "$(cat "$dir/version")" >"$dir/references"
	grep /pause: "$dir/references" | tr -d '\n' >"$dir/local/share/pause-image"
	while read -r reference; do
		program=${reference##*/} program=${program%%:*}
		echo "$reference $program" >>"$dir/images/list"
		case $program in
		coredns | pause) place "$(compiled "$program")" "$dir/images/$program" ;;
		*) place "$(kubernetes "$program")" "$dir/images/$program" ;;
		esac
	done <"$dir/references"
}

place() {
	ln "$1" "$2" 2>/dev/null || cp "$1" "$2"
}

build() {
	dir=$(mktemp -d "$cache/context.XXXXXX")
	trap 'rm -rf "$dir"' EXIT
	context "$dir" "$2"
	docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0 # the engine's own builder
	docker build --build-arg RESTRICTED="$(restricted | tr '\n' ' ')" -t "$1" "$dir"
}

official=$(cd "$here/node" && grep -oE 'kindest/node:[^"]+' "$(go list -m -f '{{.Dir}}' sigs.k8s.io/kind)/pkg/apis/config/defaults/image.go")
image=${E2E_NODE_IMAGE:-}
if [ -z "$image" ]; then
	if has "$official"; then
		image=$official
	elif timeout 10 docker manifest inspect "$official" >/dev/null 2>&1; then
		step "$official pulled" docker pull "$official"
		image=$official
	fi
elif [ "$image" = made ]; then
	image=
elif ! has "$image"; then
	step "$image pulled" docker pull "$image"
fi

if [ -z "$image" ]; then
	kubernetes kubelet >/dev/null # compiles, and tells how far it is
	image=elector-e2e-node:$(recipe | sha256sum | cut -c 1-16)
	if ! has "$image"; then
		debian=$cache/debian-$(echo "$suite $packages" | sha256sum | cut -c 1-16).tar
		if [ ! -e "$debian" ]; then step 'Debian for the nodes' rootfs "$debian"; fi
		step 'containerd, CoreDNS and crictl compiled' compile containerd containerd-shim-runc-v2 ctr coredns crictl pause
		step 'runc compiled' runc
		step "node image $image" build "$image" "$debian"
	fi
fi
echo "$image" >&3
