# Sourced by the scripts beside it: where things are, how a step is told, and where programs come from.
# shellcheck shell=bash disable=SC2034 # names that only those scripts use
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../../.." && pwd)
cache=${ELECTOR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/elector}
cluster=${E2E_CLUSTER:-elector-e2e}
e2e=$repo/.e2e
log=$e2e/logs/$(basename "$0" .sh).log
mkdir -p "$cache" "$e2e/bin" "$e2e/logs"
export PATH=$e2e/bin:$PATH KUBECONFIG=$e2e/kubeconfig

die() {
	printf '%s\n' "$*" >&2
	exit 1
}

# step TEXT COMMAND... runs a command, keeps its output for the case that it fails, and says how long it took.
step() {
	local text=$1 start=$EPOCHREALTIME code
	shift
	if [ -t 1 ]; then printf '     ...  %s\r' "$text"; fi
	set +e # in front of "||" it would be off for the command, too
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null
	code=$?
	set -e
	local took=$(((${EPOCHREALTIME/./} - ${start/./}) / 100000))
	printf '%4d.%d s  %s\n' $((took / 10)) $((took % 10)) "$text"
	if ((code)); then
		tail -n 40 "$log" >&2
		die "That failed with exit code $code; $log has all of it."
	fi
}

on_debian_as_root() {
	[ "$(id -u)" = 0 ] && [ -e /etc/debian_version ]
}

# debian PACKAGE... installs what is not there.
debian() {
	if dpkg -s "$@" >/dev/null 2>&1; then return; fi
	on_debian_as_root || die "Please install these Debian packages, or what has the same content elsewhere: $*"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# clients puts the programs that talk to a cluster into .e2e/bin: kubectl, helm and kind.
clients() {
	local name path
	[ -x "$repo/bin/cluster" ] || make -C "$repo" bin/cluster
	for name in kubectl helm; do
		path=$("$repo/bin/cluster" bin-path "$name")
		ln -sf "$path" "$e2e/bin/$name"
	done
	compile kind
	ln -sf "$(compiled kind)" "$e2e/bin/kind"
}

# What node/ pins is kept by its content, as test/cluster keeps Kubernetes.
node_hash() {
	(cd "$here/node" && { go env GOVERSION && cat go.mod go.sum pause/*.go; } | sha256sum | cut -c 1-16)
}

compiled() {
	echo "$cache/kind-$(node_hash)/bin/$1"
}

# compile NAME... compiles those programs of node/ that are not in the cache.
compile() {
	local bin name missing=() wanted=()
	bin=$(dirname "$(compiled any)")
	mkdir -p "$bin"
	touch "$(dirname "$bin")" # in use: test/cluster removes from the cache what is not
	(
		flock 9 # one compiles, another waits and finds it done
		for name; do [ -x "$bin/$name" ] || missing+=("$name"); done
		if [ ${#missing[@]} = 0 ]; then exit; fi
		echo "compiling ${missing[*]} (once)" >&2
		for name in "${missing[@]}"; do
			case $name in
			pause) wanted+=(./pause) ;;
			*) wanted+=("$(cd "$here/node" && GOFLAGS='' go list tool | grep "/$name$")") ;;
			esac
		done
		stage=$(mktemp -d "$bin.XXXXXX")
		trap 'rm -rf "$stage"' EXIT
		cd "$here/node"
		export GOFLAGS='' GOWORK=off GOOS='' GOARCH=''
		if [ "${missing[*]}" = runc ]; then
			# Static, because the node's C library need not be this machine's.
			CGO_ENABLED=1 go build -trimpath -buildvcs=false -tags 'seccomp netgo osusergo' -ldflags '-s -w -extldflags -static' -o "$stage/" "${wanted[@]}"
		else
			CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags 'no_btrfs no_devmapper no_zfs no_aufs' -ldflags '-s -w' -o "$stage/" "${wanted[@]}"
		fi
		mv "$stage"/* "$bin/"
	) 9>"$bin.lock"
}
