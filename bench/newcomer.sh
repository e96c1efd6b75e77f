#!/bin/sh
# From an empty home to the first reply, as somebody does it who has just built nex. Prints how long that took; --limit SECONDS fails
# beyond it. Needs `nex`, `nex-agent` and `nats-server` on the PATH, or NEX_NATS_SERVER; leaves nothing behind.
set -eu

limit=
if [ "${1:-}" = --limit ]; then limit=$2; fi
port=${NEWCOMER_PORT:-14222}
home=$(mktemp -d)
mkdir "$home/home"
finish() {
    if [ -n "${up:-}" ]; then
        kill -INT "$up" 2>/dev/null || true
        wait "$up" 2>/dev/null || true
    fi
    rm -rf "$home"
}
trap finish EXIT

cd "$home"
export HOME="$home/home" XDG_CONFIG_HOME="$home/home/config" XDG_DATA_HOME="$home/home/data"
export NATS_URL="nats://127.0.0.1:$port"
unset NATS_CONTEXT NATS_CREDS NATS_USER NATS_PASSWORD NATS_TOKEN NATS_NKEY NEX_STATE_DIR NEX_NAMESPACE
began=$(date +%s%N)

echo 'export default (subject, payload) => `Hello, ${new TextDecoder().decode(payload)}!`' > hello.mjs
setsid nex up --port "$port" > up.log 2>&1 &
up=$!
until grep -q "nex is ready" up.log 2>/dev/null; do
    if ! kill -0 "$up" 2>/dev/null; then
        cat up.log >&2
        exit 1
    fi
    sleep 0.02
done
ready=$(date +%s%N)
nex devrun hello.mjs > devrun.log 2>&1 || { cat devrun.log >&2; exit 1; }
reply=$(nex call hellomjs you)
ended=$(date +%s%N)

case $reply in
    *"Hello, you!"*) ;;
    *)
        echo "the reply is not the function's: $reply" >&2
        exit 1
        ;;
esac
seconds() { awk -v ns="$1" 'BEGIN { printf "%.2f", ns / 1e9 }'; }
echo "first reply after $(seconds $((ended - began))) s, of which $(seconds $((ready - began))) s until nex was ready"
if [ -n "$limit" ] && [ $((ended - began)) -gt $((limit * 1000000000)) ]; then
    echo "that is more than $limit s" >&2
    exit 1
fi
