#!/usr/bin/env bash
# The Rust vllm-router (pip install 'wardrobe-llm[router]') in front of replicas that share one root:
#   deploy/router/start.sh http://10.0.0.1:8000 http://10.0.0.2:8000
# Settings: HOST (127.0.0.1), PORT (8080), METRICS_PORT (29000, loopback), POLICY, VLLM_ROUTER (the program).
# Options after -- go to the router as they are. It begins to listen when every replica has answered once.
set -euo pipefail

usage() { echo "usage: $0 REPLICA_URL... [-- VLLM_ROUTER_OPTION...]" >&2; exit 2; }
urls=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in http://* | https://*) urls+=("${1%/}") ;; *) usage ;; esac
  shift
done
[ ${#urls[@]} -gt 0 ] || usage
[ $# -eq 0 ] || shift

# cache_aware: like prompts to like replicas, by load beyond a few requests of difference. POLICY=consistent_hash keeps
# a conversation on one replica by the header x-session-id (also the unit of a rollout), but sends every request
# WITHOUT that header to one and the same replica: take it only where all clients send it.
# At info the router writes a line per request, with the session in it.
export RUST_LOG="${RUST_LOG:-warn}"

# /readyz decides who gets requests, asked every second; what fails before its first byte goes to another replica.
# The router would answer every web page's origin otherwise; no page of any origin is the same as ours.
exec "${VLLM_ROUTER:-vllm-router}" \
  --host "${HOST:-127.0.0.1}" --port "${PORT:-8080}" --prometheus-port "${METRICS_PORT:-29000}" \
  --worker-urls "${urls[@]}" \
  --policy "${POLICY:-cache_aware}" --balance-abs-threshold 4 --balance-rel-threshold 1.2 \
  --health-check-endpoint /readyz \
  --health-check-interval-secs 1 --health-check-timeout-secs 2 \
  --health-failure-threshold 1 --health-success-threshold 1 \
  --worker-startup-check-interval 1 \
  --retry-max-retries 8 --retry-initial-backoff-ms 50 --retry-max-backoff-ms 1000 \
  --cb-failure-threshold 3 --cb-success-threshold 1 --cb-timeout-duration-secs 2 \
  --request-timeout-secs 1800 --max-payload-size 33554432 \
  --cors-allowed-origins https://none.invalid \
  "$@"
