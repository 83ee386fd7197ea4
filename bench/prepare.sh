# What bench/run and bench/compare have in common: packages and builds. Sourced by them; sets root, tool, arguments.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# Debian keeps daemons where only root looks.
PATH=$PATH:/usr/sbin:/usr/local/sbin
tool=$root/target/bench/release/homing-bench
arguments=()

# program=package
packages=(
    nginx=nginx haproxy=haproxy wrk=wrk h2load=nghttp2-client python3=python3 openssl=openssl
)

need_packages() {
    local entry missing=()
    for entry in "${packages[@]}"; do
        command -v "${entry%%=*}" >/dev/null || missing+=("${entry#*=}")
    done
    if ((${#missing[@]} == 0)); then return; fi
    if command -v apt-get >/dev/null && ((EUID == 0)); then
        echo "$called: installing ${missing[*]}" >&2
        apt-get update -q >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
    else
        echo "$called: please install: ${missing[*]}" >&2
        exit 1
    fi
}

need_python() {
    if ! command -v python3 >/dev/null; then need_packages; fi
}

build_tool() {
    cargo build --quiet --release --locked --manifest-path bench/tool/Cargo.toml --target-dir "$root/target/bench"
}

# build_homing TREE TARGET: the program of a source tree, as it is shipped.
build_homing() {
    echo "$called: building $1" >&2
    cargo build --quiet --release --locked --bin homing --manifest-path "$1/Cargo.toml" --target-dir "$2"
}
