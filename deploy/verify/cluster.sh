#!/usr/bin/env bash
# Verify a release of the chart on a real cluster. It was written without one: read it before you run it.
#   WARDROBE_KEY=wardrobe_… deploy/verify/cluster.sh NAMESPACE RELEASE ADAPTER_FOLDER
# WARDROBE_KEY has the scope admin. It leaves an adapter `verify-…` in the root; everything else is removed.
set -euo pipefail
[ $# -eq 3 ] && [ -n "${WARDROBE_KEY:-}" ] || { echo "usage: WARDROBE_KEY=… $0 NAMESPACE RELEASE ADAPTER_FOLDER" >&2; exit 2; }
namespace=$1 release=$2 adapter=$3
kubectl=${KUBECTL:-kubectl}
k() { "$kubectl" --namespace "$namespace" "$@"; }
say() { printf '\n== %s\n' "$*"; }

selector="app.kubernetes.io/instance=$release,app.kubernetes.io/component=replica"
deployment=$(k get deployment -l "app.kubernetes.io/instance=$release" -o jsonpath='{.items[0].metadata.name}')
image=$(k get deployment "$deployment" -o jsonpath='{.spec.template.spec.containers[0].image}')
port=$(k get service "$deployment" -o jsonpath='{.spec.ports[0].port}')
name="verify-$(date +%s)"

say "a pod to ask from ($image)"
cleanup() { k delete pod/wardrobe-verify secret/wardrobe-verify --ignore-not-found --wait=false >/dev/null; }
trap cleanup EXIT
printf %s "$WARDROBE_KEY" | k create secret generic wardrobe-verify --from-file=key=/dev/stdin
k apply -f - <<POD
apiVersion: v1
kind: Pod
metadata:
  name: wardrobe-verify
  labels: {app.kubernetes.io/instance: $release, app.kubernetes.io/name: wardrobe, app.kubernetes.io/component: verify}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: verify
      image: $image
      command: [sleep, "7200"]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      env:
        - name: WARDROBE_KEY
          valueFrom: {secretKeyRef: {name: wardrobe-verify, key: key}}
POD
k wait --for=condition=Ready pod/wardrobe-verify --timeout=180s
k cp "$adapter" wardrobe-verify:/tmp/adapter
verify() { k exec wardrobe-verify -- python -P -m deploy.verify "$@"; }

say "registered once, served by all; a step applies everywhere within a second"
replicas=()
for address in $(k get pods -l "$selector" -o jsonpath='{.items[*].status.podIP}'); do
  replicas+=(--replica "http://$address:8000")
done
[ ${#replicas[@]} -ge 4 ] || { echo "error: $deployment has fewer than two replicas; set replicaCount" >&2; exit 1; }
verify fleet "${replicas[@]}" --adapter /tmp/adapter --name "$name"

# LOAD_CLIENTS streams at a time: no more than these can be in flight on the pod that is killed.
clients=${LOAD_CLIENTS:-8}
load() { verify load --url "http://$deployment:$port" --model "$name" --clients "$clients" --seconds 1800 --stop-file /tmp/stop "$@"; }
with_load() { # ALLOWED COMMAND...
  local allowed=$1 pid; shift
  k exec wardrobe-verify -- rm -f /tmp/stop
  load --allow "$allowed" & pid=$!
  sleep 15
  "$@"
  sleep 15
  k exec wardrobe-verify -- touch /tmp/stop
  wait "$pid"
}

kill_one() {
  k delete pod "$(k get pods -l "$selector" -o jsonpath='{.items[0].metadata.name}')" --grace-period=0 --force
  k rollout status deployment "$deployment" --timeout=20m
}
restart_all() {
  k rollout restart deployment "$deployment"
  k rollout status deployment "$deployment" --timeout=60m
}

say "one pod killed under load: at most what it was answering fails, and it comes back by itself"
with_load "$clients" kill_one
say "a rolling restart under load: nothing fails"
with_load 0 restart_all
say "done; the adapter $name is left in the root"
