#!/usr/bin/env bash
# The end-to-end tests: a cluster, the packaged chart, the tests, and the cluster's end.
#
# E2E_RUN=NAME runs the scenarios of that name, and the check of all claims. E2E_KEEP=1 leaves the cluster there for the next run and for a look at it.
. "$(dirname "$0")/lib.sh"

finish() {
	local code=$?
	trap - EXIT
	if ((code)); then "$here/logs.sh" || true; fi
	if [ "${E2E_KEEP:-}" = 1 ]; then
		echo "The cluster is kept: export KUBECONFIG=$KUBECONFIG PATH=$e2e/bin:\$PATH"
	else
		"$here/down.sh" || code=1
	fi
	exit "$code"
}

chart() {
	rm -rf "$e2e/chart"
	helm package "$repo/charts/elector" --destination "$e2e/chart"
}

"$here/docker.sh"
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$here/up.sh"
step 'chart packaged' chart
export E2E_CLUSTER=$cluster E2E_CHART E2E_LOADED=1
E2E_CHART=$(echo "$e2e"/chart/elector-*.tgz)
cd "$repo"
go test -tags e2e -count 1 -timeout 40m -v ${E2E_RUN:+-run "TestElector/./$E2E_RUN"} ./test/e2e
