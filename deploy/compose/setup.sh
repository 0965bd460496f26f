#!/usr/bin/env bash
# Once per machine: the folder of the base model goes into .env, the root is made, and the keys for Prometheus,
# Alertmanager and you. A second run keeps what is there. DOCKER=podman works as well.
set -euo pipefail
cd "$(dirname "$0")"

[ $# -eq 1 ] || { echo "usage: $0 BASE_MODEL_FOLDER" >&2; exit 2; }
[ -f "$1/config.json" ] || { echo "error: $1: holds no config.json; name the folder of a model" >&2; exit 1; }
model=$(cd "$1" && pwd)

umask 077
touch .env
grep -q '^BASE_MODEL=' .env || echo "BASE_MODEL=$model" >>.env
# Containers' users read single files out of it, so the files are open and the folder is not.
mkdir -p -m 0700 secrets

cli() { "${DOCKER:-docker}" compose --profile cli run --rm -T cli "$@"; }

cli init --base /models/base

make_key() { # FILE SCOPE NOTE
  [ ! -s "secrets/$1" ] || return 0
  cli keys create --scope "$2" --note "$3" >"secrets/$1.tmp"
  chmod 0644 "secrets/$1.tmp"
  mv "secrets/$1.tmp" "secrets/$1"
}
make_key wardrobe-key infer Prometheus
make_key wardrobe-admin-key admin Alertmanager
make_key my-key admin "$(id -un)"
if [ ! -s secrets/grafana-password ]; then
  od -An -N18 -tx1 /dev/urandom | tr -d ' \n' >secrets/grafana-password
  chmod 0644 secrets/grafana-password
fi

echo "ready: docker compose -f deploy/compose/compose.yaml up -d"
echo "your key is in deploy/compose/secrets/my-key, Grafana's password (user admin) in secrets/grafana-password"
