#!/usr/bin/env bash
# Installs what building, testing and the demo need. Says what it does; does nothing that is already done.
set -euo pipefail
cd "$(dirname "$0")/.."

BPF_LINKER_VERSION=0.13.0
CARGO_DENY_VERSION=0.20.2

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# A command or file, and the Debian package that has it. What is there counts, whoever installed it.
needs=(
  'ip iproute2' 'ping iputils-ping' 'nft nftables' 'containerd containerd' 'ctr containerd' 'runc runc' 'podman podman'
  '/usr/lib/cni/bridge containernetworking-plugins' 'tcpdump tcpdump' 'ethtool ethtool' 'protoc protobuf-compiler'
  'musl-gcc musl-tools' 'curl curl' 'jq jq' '/etc/ssl/certs/ca-certificates.crt ca-certificates' 'gcc gcc' '/usr/include/stdlib.h libc6-dev'
  'bird bird2' 'bgpdump bgpdump' 'gobgpd gobgpd' 'gobgp gobgpd' '/usr/lib/frr/bgpd frr' 'pkg-config pkg-config' 'git git' 'make make' 'ps procps'
)

present() {
  case $1 in
    /*) [ -e "$1" ] ;;
    # Debian keeps some of these where only root looks.
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
  esac
}

# The containers' root file system is a busybox that needs no library.
static_busybox() {
  local busybox
  busybox=$(PATH="$PATH:/usr/sbin:/sbin" command -v busybox) && [[ $(ldd "$busybox" 2>&1) == *'not a dynamic'* ]]
}

install_packages() {
  local need missing=()
  for need in "${needs[@]}"; do
    read -r thing package <<<"$need"
    present "$thing" || [[ " ${missing[*]} " == *" $package "* ]] || missing+=("$package")
  done
  static_busybox || missing+=(busybox-static)
  if [ ${#missing[@]} -eq 0 ]; then
    say 'all Debian packages are there'
    return
  fi
  command -v apt-get >/dev/null || die "this is not Debian: install these yourself, then try again: ${missing[*]}"
  local sudo=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "not root, and no sudo: as root, run apt-get install ${missing[*]}"
    sudo=(sudo)
  fi
  say "installing Debian packages: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  # Tests start their own: a host's router that came with a test's package would take BGP's port.
  local daemon
  for daemon in bird2:bird gobgpd:gobgpd frr:frr; do
    if [ -d /run/systemd/system ] && [[ " ${missing[*]} " == *" ${daemon%:*} "* ]]; then
      say "stopping the service ${daemon#*:}, which came with its package"
      "${sudo[@]}" systemctl disable --now -q "${daemon#*:}" || true
    fi
  done
}

# The stock clients of later GoBGP versions, whose transcripts tests compare. Debian has them in later suites; they need
# nothing else from there, and lie beside the system's own, which stays as it is.
newer_gobgps=('3 trixie' '4 trixie-backports')
newer_gobgp_directory=/usr/local/lib/isthmus-tests

debian_mirror() {
  apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | sed -n 1p
}

install_newer_gobgps() {
  local one version suite place work mirror apt sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  for one in "${newer_gobgps[@]}"; do
    read -r version suite <<<"$one"
    place=$newer_gobgp_directory/gobgp-$version
    if [ -x "$place/usr/bin/gobgp" ]; then
      say "$("$place/usr/bin/gobgp" --version) is there"
      continue
    fi
    say "fetching GoBGP $version, as Debian's $suite has it"
    mirror=$(debian_mirror)
    if [ -z "$mirror" ]; then
      # Whose a source is stands in its lists.
      "${sudo[@]}" apt-get update -qq
      mirror=$(debian_mirror)
    fi
    [ -n "$mirror" ] || die "none of apt's sources is Debian: put gobgp of Debian's $suite at $place/usr/bin/gobgp yourself"
    work=$(mktemp -d)
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    printf 'deb %s %s main\n' "$mirror" "$suite" >"$work/sources.list"
    # Lists and cache of its own: the system's packages do not see the suite.
    apt=("${sudo[@]}" apt-get -qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
      -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
    # The demo does without; the tests that ask this client fail, and name the file.
    if ! { "${apt[@]}" update && (cd "$work" && "${apt[@]}" download gobgpd); }; then
      say "GoBGP $version cannot be had from $mirror: make test will fail until $place/usr/bin/gobgp is there"
      "${sudo[@]}" rm -r "$work"
      continue
    fi
    "${sudo[@]}" mkdir -p "$place"
    "${sudo[@]}" dpkg-deb -x "$work"/gobgpd_*.deb "$place"
    "${sudo[@]}" rm -r "$work"
  done
}

install_rust_parts() {
  export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  command -v rustup >/dev/null || die 'rustup is missing: install Rust as https://rustup.rs says, then try again'
  local channel component target
  channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
  if ! rustup run "$channel" rustc --version >/dev/null 2>&1; then
    say "installing Rust $channel"
    rustup toolchain install "$channel" --profile minimal --component clippy,rust-src,rustfmt --target x86_64-unknown-linux-musl
  fi
  for component in clippy rust-src rustfmt; do
    if ! rustup component list --toolchain "$channel" --installed | grep -q "^$component"; then
      say "installing Rust's component $component"
      rustup component add --toolchain "$channel" "$component"
    fi
  done
  target=x86_64-unknown-linux-musl
  if ! rustup target list --toolchain "$channel" --installed | grep -qx "$target"; then
    say "installing Rust's target $target"
    rustup target add --toolchain "$channel" "$target"
  fi
  say "$(rustc --version), with clippy, rustfmt, rust-src and $target"
}

# The BPF linker uses the very LLVM that the compiler ships: it must be the same version, and no other copy is needed.
# Its own build script looks for llvm-config, which Debian's LLVM would answer with another version: it is left out
# (no-llvm-linking), and the linker is told directly.
install_bpf_linker() {
  if bpf-linker --version >/dev/null 2>&1; then
    say "$(bpf-linker --version) is there"
    return
  fi
  local sysroot llvm libraries
  sysroot=$(rustc --print sysroot)
  llvm=$(rustc --version --verbose | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
  libraries=$(mktemp -d)
  say "building bpf-linker $BPF_LINKER_VERSION against Rust's LLVM $llvm (about two minutes)"
  ln -s "$(find "$sysroot/lib" -maxdepth 1 -name 'libLLVM.so.*' | head -n 1)" "$libraries/libLLVM.so"
  RUSTFLAGS="-L native=$libraries -C link-arg=-lLLVM -C link-arg=-Wl,-rpath,$sysroot/lib" \
    cargo install bpf-linker --locked --force --version "$BPF_LINKER_VERSION" \
    --no-default-features --features "llvm-$llvm,no-llvm-linking"
  rm -r "$libraries"
}

install_cargo_deny() {
  if cargo deny --version >/dev/null 2>&1; then
    say "$(cargo deny --version) is there"
    return
  fi
  say "building cargo-deny $CARGO_DENY_VERSION (about three minutes)"
  cargo install cargo-deny --locked --version "$CARGO_DENY_VERSION" --no-default-features
}

install_packages
install_newer_gobgps
install_rust_parts
install_bpf_linker
install_cargo_deny
say 'ready'
