# Base images: as they are pulled or, where they cannot be, stand-ins with the same names, paths, users and
# entry points as far as Dockerfile and docker-compose.yml rely on them. Sourced by run.

readonly STAND_IN=homing.stand-in
images_offline=

images_prepare() {
    step 'base images'
    docker_image debian:bookworm-slim stand_in_debian
    docker_image "$(build_image)" stand_in_rust
    docker_image "$(service_image redis)" stand_in_redis
    docker_image "$(service_image prometheus)" stand_in_prometheus
}

# The names that people's files give, so that nothing else is tested here.
build_image() {
    local version
    version="$(sed -n 's/^ARG RUST=//p' "$root/Dockerfile")"
    sed -n 's/^FROM \(.*\) AS build$/\1/p' "$root/Dockerfile" | sed "s/\${RUST}/$version/"
}

service_image() { sed -n "s/^    image: \(.*$1.*\)$/\1/p" "$root/docker-compose.yml"; }

# docker_image NAME MAKER
docker_image() {
    [[ -n "$1" ]] || give_up "an image's name was not found for $2"
    if docker image inspect "$1" >/dev/null 2>&1; then
        echo "  $1 is there"
    elif [[ -z "$images_offline" ]] && timeout 600 docker pull --quiet "$1" >/dev/null 2>&1; then
        echo "  $1 is pulled"
    else
        # One registry, one answer.
        images_offline=1
        command -v debootstrap >/dev/null || give_up "$1 can neither be pulled nor, without debootstrap, be stood in for"
        "$2" "$1" >"$work/image.log" 2>&1 || { tail -n 20 "$work/image.log" >&2; give_up "cannot make a stand-in for $1"; }
        echo "  $1 cannot be pulled: a stand-in is made"
    fi
}

stand_in_debian() {
    debootstrap --variant=minbase bookworm "$work/debian" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    rm -rf "$work/debian/var/cache/apt/archives" "$work/debian/var/lib/apt/lists"
    mkdir -p "$work/debian/var/lib/apt/lists/partial" "$work/debian/var/cache/apt/archives/partial"
    tar -C "$work/debian" -c . | docker import --change 'CMD ["bash"]' --change "LABEL $STAND_IN=yes" - "$1"
    rm -rf "$work/debian"
}

# The toolchain of this machine, what its cargo has already fetched, and the certificates it trusts: the build
# asks a registry only for what is missing.
stand_in_rust() {
    local cargo="${CARGO_HOME:-$HOME/.cargo}"
    cargo fetch --locked --manifest-path "$root/Cargo.toml"
    derive "$1" "
            $(install_packages gcc libc6-dev ca-certificates)
            cat /machine/certificates >/etc/ssl/certs/ca-certificates.crt
            cp -a /machine/toolchain/bin /machine/toolchain/lib /usr/local/
            mkdir -p /usr/local/cargo/registry
            cp -a /machine/registry/index /machine/registry/cache /usr/local/cargo/registry/
            if [ -e /machine/config.toml ]; then cp /machine/config.toml /usr/local/cargo/; fi
            cargo --version" \
        --volume "$(rustc --print sysroot):/machine/toolchain:ro" \
        --volume "$cargo/registry:/machine/registry:ro" \
        --volume "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}:/machine/certificates:ro" \
        $([[ -e "$cargo/config.toml" ]] && printf -- '--volume %s:/machine/config.toml:ro' "$cargo/config.toml") \
        -- --change 'ENV CARGO_HOME=/usr/local/cargo'
}

stand_in_redis() {
    derive "$1" "
            groupadd --system --gid 999 redis
            useradd --system --uid 999 --gid redis redis
            $(install_packages redis-server)
            mkdir -p /data
            chown redis:redis /data" \
        -- --change 'WORKDIR /data' --change 'VOLUME /data' --change 'CMD ["redis-server"]'
}

stand_in_prometheus() {
    derive "$1" "
            $(install_packages prometheus)
            mkdir -p /prometheus
            chown 65534:65534 /prometheus" \
        -- --change 'USER nobody' --change 'WORKDIR /prometheus' --change 'VOLUME /prometheus' \
        --change 'ENTRYPOINT ["prometheus"]' \
        --change 'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]'
}

install_packages() {
    printf 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends %s
            rm -rf /var/lib/apt/lists/*' "$*"
}

# derive NAME SCRIPT [RUN OPTIONS] -- [COMMIT OPTIONS]: the Debian image after a script, under another name.
derive() {
    local name="$1" script="$2" options=() container
    shift 2
    while [[ "$1" != -- ]]; do options+=("$1") && shift; done
    shift
    container="homing-stand-in-$$"
    docker run --name "$container" "${options[@]}" debian:bookworm-slim sh -euc "$script" \
        && docker commit --change "LABEL $STAND_IN=yes" "$@" "$container" "$name"
    local code=$?
    docker rm --volumes --force "$container"
    return "$code"
}

# Nobody shall take stand-ins, or what was built on them, for the real ones.
images_forget() {
    # An engine of our own takes them along.
    [[ -z "${KEEP:-}" && -z "$engine_pid" ]] || return 0
    local images
    images="$(docker image ls --quiet --filter "label=$STAND_IN" 2>/dev/null | sort -u)"
    [[ -z "$images" ]] || docker image rm --force $images >/dev/null 2>&1
    docker image prune --force --filter "label=$STAND_IN" >/dev/null 2>&1
}
