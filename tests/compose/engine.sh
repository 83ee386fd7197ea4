# The container engine: the one that runs, or one of our own. Sourced by run.

engine_pid=
engine_had_bridge=

# program=package
engine_packages=(docker=docker.io dockerd=docker.io)
compose_packages=(docker-compose=docker-compose)
other_packages=(curl=curl jq=jq)

engine_start() {
    step 'an engine'
    engine_install
    if docker info >/dev/null 2>&1; then
        echo "  uses the one that runs: $(docker version --format '{{.Server.Version}}')"
    else
        engine_own
    fi
    # Version 1 or 2 by whichever name it is installed.
    if command -v docker-compose >/dev/null; then
        compose_command=(docker-compose)
    elif docker compose version >/dev/null 2>&1; then
        compose_command=(docker compose)
    else
        give_up 'there is neither docker-compose nor `docker compose`' "$NO_ENGINE"
    fi
    echo "  compose $("${compose_command[@]}" version --short)"
}

engine_install() {
    local entry missing=() wanted=("${other_packages[@]}")
    # Which is of use to root alone, and only where images cannot be pulled.
    if ((EUID == 0)); then wanted+=(debootstrap=debootstrap); fi
    docker info >/dev/null 2>&1 || wanted+=("${engine_packages[@]}")
    docker compose version >/dev/null 2>&1 || wanted+=("${compose_packages[@]}")
    for entry in "${wanted[@]}"; do
        command -v "${entry%%=*}" >/dev/null || missing+=("${entry#*=}")
    done
    ((${#missing[@]})) || return 0
    if ((EUID == 0)) && command -v apt-get >/dev/null; then
        echo "  installs ${missing[*]}"
        # With what they recommend: cgroups that are mounted, keys that debootstrap checks packages by.
        if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${missing[@]}"; } \
            >"$work/apt.log" 2>&1; then
            tail -n 5 "$work/apt.log" >&2
            give_up "cannot install ${missing[*]}" "$NO_ENGINE"
        fi
    else
        give_up "please install ${missing[*]}; only root on Debian or Ubuntu is helped to it" "$NO_ENGINE"
    fi
}

# Everything of it lies in $work: whatever images this machine has elsewhere are left alone.
engine_own() {
    ((EUID == 0)) || give_up 'no engine runs, and only root can start one' "$NO_ENGINE"
    command -v dockerd >/dev/null || give_up 'no engine runs, and there is no dockerd' "$NO_ENGINE"
    # Where no init system has done so.
    if ! grep -q '^[^ ]* [^ ]* cgroup' /proc/mounts && command -v cgroupfs-mount >/dev/null; then cgroupfs-mount; fi
    if [[ -e /sys/class/net/docker0 ]]; then engine_had_bridge=1; fi
    export DOCKER_HOST="unix://$work/docker.sock"
    dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/docker.pid" \
        >"$work/dockerd.log" 2>&1 &
    engine_pid=$!
    if ! eventually 60 docker info >/dev/null; then
        tail -n 5 "$work/dockerd.log" >&2
        give_up 'dockerd does not start here' "$NO_ENGINE"
    fi
    echo "  started one: $(docker version --format '{{.Server.Version}}')"
}

engine_stop() {
    [[ -n "$engine_pid" ]] || return 0
    kill "$engine_pid" 2>/dev/null
    wait "$engine_pid" 2>/dev/null
    [[ -n "$engine_had_bridge" ]] || ip link delete docker0 2>/dev/null || true
}
