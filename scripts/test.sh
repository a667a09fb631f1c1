#!/usr/bin/env bash
# Runs all checks and tests, and goes on after a failure. The last line is "N passed, N failed".
#
# Tests that need root are run as root, and fail where they would be skipped (variable CI).
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
export CI=1
logs=target/test
mkdir -p "$logs"
passed=0
failed=0
failures=()

# Runs one stage, keeps its output, and counts: its tests if it has some, else itself.
stage() {
  local name=$1 log=$logs/$1.log status=0 start=$SECONDS ok bad
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  "$@" 2>&1 | tee "$log" || status=$?
  ok=$(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$log" | paste -sd+ | sum_of)
  bad=$(sed -n 's/^test result: .* \([0-9]*\) failed; .*/\1/p' "$log" | paste -sd+ | sum_of)
  if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
    bad=1
  elif [ "$status" -eq 0 ] && [ "$ok" -eq 0 ] && [ "$bad" -eq 0 ]; then
    ok=1
  fi
  passed=$((passed + ok))
  failed=$((failed + bad))
  [ "$bad" -eq 0 ] || failures+=("$name ($bad, see $log)")
  printf '== %s: %d passed, %d failed, %d s\n' "$name" "$ok" "$bad" $((SECONDS - start))
  return "$status"
}

# The value of a sum such as 1+2+3; 0 of nothing.
sum_of() {
  local sum
  read -r sum || true
  echo $((${sum:-0}))
}

# Cargo starts each test program with this before it.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="sudo -E env PATH=$PATH" "$@"
  fi
}

finish() {
  local failure
  printf '\n'
  for failure in "${failures[@]}"; do
    printf 'failed: %s\n' "$failure"
  done
  printf '%d passed, %d failed\n' "$passed" "$failed"
  [ "$failed" -eq 0 ]
}

stage setup scripts/setup.sh || { finish; exit 1; }
stage fmt make --no-print-directory fmt || true
stage tidy make --no-print-directory tidy || true
stage deny make --no-print-directory deny || true
stage clippy make --no-print-directory clippy || true
stage docs make --no-print-directory docs || true
stage fuzz make --no-print-directory fuzz || true
# Later stages use the static programs.
stage build make --no-print-directory build || { finish; exit 1; }
stage unit cargo test --locked --workspace --all-features --no-fail-fast --lib --bins || true
stage doc cargo test --locked --workspace --all-features --no-fail-fast --doc || true
stage namespace as_root cargo test --locked --workspace --all-features --no-fail-fast --test '*' || true
for round in 1 2 3; do
  stage "demo-$round" scripts/demo.sh round || true
done
stage drill scripts/demo.sh drill || true
stage demo-bgp scripts/demo.sh bgp || true
finish
