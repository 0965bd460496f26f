#!/usr/bin/env bash
# Build the images and run the compose project on this machine. It was written without a container engine.
#   deploy/verify/docker.sh BASE_MODEL_FOLDER ADAPTER_FOLDER
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: $0 BASE_MODEL_FOLDER ADAPTER_FOLDER" >&2; exit 2; }
cd "$(dirname "$0")/../.."
docker=${DOCKER:-docker} url=http://127.0.0.1:${WARDROBE_HTTP_PORT:-8000}
compose() { "$docker" compose -f deploy/compose/compose.yaml "$@"; }

for target in cpu train; do
  "$docker" build -f deploy/docker/Dockerfile --target "$target" -t "wardrobe:$target-0.1.0" .
done
"$docker" run --rm --read-only --tmpfs /tmp wardrobe:cpu-0.1.0 --help >/dev/null
[ "$("$docker" run --rm --entrypoint id wardrobe:cpu-0.1.0 -u)" = 10001 ]

deploy/compose/setup.sh "$1"
compose up -d --wait --wait-timeout 600
WARDROBE_KEY=$(cat deploy/compose/secrets/my-key)
export WARDROBE_KEY
python3 -m deploy.verify fleet --replica "$url" --adapter "$2" --name verify-docker

echo "== a stop while streams run: nothing is cut; newcomers are refused, so stop the load first"
rm -f /tmp/wardrobe-verify-stop
python3 -m deploy.verify load --url "$url" --model verify-docker --clients 4 --max-tokens 400 --seconds 600 \
  --stop-file /tmp/wardrobe-verify-stop & load=$!
sleep 20
touch /tmp/wardrobe-verify-stop
sleep 0.5
compose stop wardrobe
wait "$load"
compose start wardrobe
for service in prometheus:9090/-/ready alertmanager:9093/-/ready grafana:3000/api/health; do
  curl -fsS "http://127.0.0.1:${service#*:}" >/dev/null && echo "ok  ${service%%:*} answers"
done
echo "done; \`docker compose -f deploy/compose/compose.yaml down -v\` removes everything, the root included"
