#!/usr/bin/env bash
# Sees to it that a Docker engine answers. On Debian, as root, it installs and starts one; elsewhere it says what to do.
#
# The engine goes on when this script ends. Nothing stops it: it is the machine's, and other programs may use it by then.
. "$(dirname "$0")/lib.sh"

answers() {
	timeout 10 docker info >/dev/null 2>&1
}

until_answers() {
	local deadline=$((SECONDS + $1))
	until answers; do
		((SECONDS < deadline)) || return 1
		sleep 0.3
	done
}

# start is for machines where no init system does it.
start() {
	local args=()
	# Kind's nodes are privileged containers, which get every capability. An engine that lacks one cannot give it.
	if (((0x$(awk '/^CapEff/ {print $2}' /proc/self/status) >> 24 & 1) == 0)); then
		debian jq
		install -D -m 755 "$here/runc-without-sys-resource" "$cache/docker/runc-without-sys-resource"
		args+=(--add-runtime "without-sys-resource=$cache/docker/runc-without-sys-resource" --default-runtime without-sys-resource)
	fi
	mkdir -p "$cache/docker"
	setsid nohup dockerd "${args[@]}" >"$cache/docker/dockerd.log" 2>&1 </dev/null &
	until_answers 60 || {
		tail -n 20 "$cache/docker/dockerd.log"
		return 1
	}
}

answers && exit
on_debian_as_root || die 'The end-to-end tests need a Docker engine, and none answers "docker info": start it, or give this user access to it.'
command -v dockerd >/dev/null || step 'Docker engine installed' debian docker.io
command -v docker >/dev/null || step 'Docker client installed' debian docker-cli # later Debians have it apart
if [ -d /run/systemd/system ]; then
	step 'Docker engine started' systemctl start docker
	until_answers 30 || die 'The Docker engine was started and does not answer "docker info".'
else
	step 'Docker engine started' start
fi
