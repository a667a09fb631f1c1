#!/usr/bin/env bash
# The demo, for people and for CI. Whatever happens, what it put on this machine is taken away again.
#
#   show    up, the checked tour, down; the tour's summary is the last that is printed
#   round   the same, and the machine must be as it was before
#   drill   up, kill every agent under traffic, down; nothing may be lost
#   bgp     the demo of BGP: up, the checked tour, down, and the machine must be as it was before
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
isthmus=$PWD/target/x86_64-unknown-linux-musl/release/isthmus
logs=target/demo
mkdir -p "$logs"
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)

die() { printf 'demo: %s\n' "$*" >&2; exit 1; }
[ -x "$isthmus" ] || die "$isthmus is missing: run make build"

demo() { "${sudo[@]}" "$isthmus" demo "$@"; }

# Silent, so that what came before stays the last on the screen. Arguments: which demo, if not the usual one.
down() {
  if ! demo "$@" down >"$logs/down.log" 2>&1; then
    cat "$logs/down.log" >&2
    die "isthmus demo $* down failed: try it again by hand"
  fi
}

# What a run must leave as it was.
host_state() {
  printf '# namespaces\n'
  ip netns list | awk '{ print $1 }' | sort
  printf '# links\n'
  ip -o link show | awk -F': ' '{ print $2 }' | sort
  printf '# nftables\n'
  "${sudo[@]}" nft list ruleset
  printf '# BPF file systems and pins\n'
  findmnt -rn -t bpf -o TARGET | sort
  "${sudo[@]}" find /sys/fs/bpf -mindepth 1 2>/dev/null | sort
  printf '# processes\n'
  ps -eo comm= | grep -E '^(isthmus|containerd|runc|podman|conmon|busybox|pause|bird|tcpdump)' | sort | uniq -c || true
}

with_demo() {
  trap down EXIT
  demo up
  "$@"
  trap - EXIT
  down
}

drill() {
  local result=$logs/drill.json
  demo drill agent-kill -o json | tee "$result"
  jq -e '.packets_sent > 0 and .packets_lost == 0 and .flows > 0 and .flows_reset == 0' "$result" >/dev/null ||
    die "the drill lost something: see $result"
}

bgp_story() {
  trap 'down bgp' EXIT
  demo bgp up
  demo bgp tour --check
  trap - EXIT
  down bgp
}

as_before() {
  host_state >"$logs/before"
  "$@"
  host_state >"$logs/after"
  diff -u "$logs/before" "$logs/after" || die 'this machine is not as it was before'
}

case ${1:-} in
  show)
    with_demo demo tour --check
    ;;
  round)
    as_before with_demo demo tour --check
    ;;
  drill)
    with_demo drill
    ;;
  bgp)
    as_before bgp_story
    ;;
  *)
    die 'write show, round, drill or bgp'
    ;;
esac
