#!/usr/bin/env bash
# The journeys on a kind cluster of their own: e2e/kind.sh PYTEST [ARGUMENTS OF PYTEST]
# Exits 3 where no container engine answers. The operator runs outside the cluster: it needs no image.
set -euo pipefail
KIND_VERSION=v0.30.0
NAME=warmpool-e2e-$$

pytest=$(realpath -s "${1:?usage: e2e/kind.sh PYTEST [ARGUMENTS]}")
shift
cd "$(dirname "$0")/.."

engine=
for candidate in docker podman nerdctl; do
  if timeout 20 "$candidate" info >/dev/null 2>&1; then
    engine=$candidate
    break
  fi
done
if [ -z "$engine" ]; then
  echo "no container engine answers here (tried docker, podman, nerdctl): no kind cluster can be made." >&2
  echo "The same journeys run on the local control plane: make e2e" >&2
  exit 3
fi
command -v go >/dev/null || { echo "kind is built with go, and there is none on PATH" >&2; exit 2; }

folder=$(mktemp -d)
export KIND_EXPERIMENTAL_PROVIDER=$engine
kind() { go run "sigs.k8s.io/kind@$KIND_VERSION" "$@" --name "$NAME" --kubeconfig "$folder/kubeconfig"; }
tidy() {
  kind delete cluster || echo "could not delete the kind cluster $NAME" >&2
  rm -rf "$folder"
}
trap tidy EXIT
echo "creating the kind cluster $NAME with $engine" >&2
kind create cluster --wait 120s
"$pytest" -q e2e --kubeconfig "$folder/kubeconfig" "$@"
