# The cluster itself: people's files, in a copy without anything that this machine has made of them. Sourced by run.

tree="$work/tree"
cluster_started=

compose() { "${compose_command[@]}" "$@"; }

# What a clone would have, as it is now: not the certificates of somebody who runs the cluster here.
cluster_copy() {
    mkdir "$tree"
    if git -C "$root" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        (cd "$root" && git ls-files --cached --others --exclude-standard -z \
            | while IFS= read -r -d '' file; do [[ ! -e "$file" ]] || printf '%s\0' "$file"; done \
            | tar --null --files-from=- --create) | tar -C "$tree" --extract
    else
        tar -C "$root" --exclude=./target --exclude='./certs/*.*' --create . | tar -C "$tree" --extract
    fi
    mkdir -p "$tree/certs"
    # As with people: the folder is not root's, and its owner is not the image's user.
    if ((EUID == 0)); then chown 1234:1234 "$tree/certs"; fi
    cd "$tree"
}

cluster_build() {
    step 'the image'
    cluster_copy
    check 'docker-compose.yml is valid, Grafana included' compose --profile grafana config
    local since=$SECONDS
    if ! quietly "$work/build.log" "${compose_command[@]}" build; then
        tail -n 30 "$work/build.log" >&2
        give_up 'the image cannot be built'
    fi
    echo "  built in $((SECONDS - since)) s"
    local size base
    size="$(docker image inspect --format '{{.Size}}' homing)"
    base="$(docker image inspect --format '{{.Size}}' debian:bookworm-slim)"
    check "it adds little to its base: $(((size - base) >> 20)) MiB" test $((size - base)) -lt $((40 << 20))
    equal 'its user is not root, and a number' 10001:10001 "$(docker image inspect --format '{{.Config.User}}' homing)"
}

cluster_up() {
    step 'up'
    cluster_started=1
    local since=$SECONDS
    if ! quietly "$work/up.log" "${compose_command[@]}" up --detach; then
        tail -n 30 "$work/up.log" >&2
        compose logs --tail 20 >&2
        give_up 'the cluster does not start'
    fi
    check 'every container is healthy' eventually 60 all_healthy
    echo "  after $((SECONDS - since)) s"
    ((failed == 0)) || { compose ps; compose logs --tail 20; } >&2
}

# Seven that run: two replicas, three shops, Redis, Prometheus; and one that has done its work.
all_healthy() {
    local states
    states="$(docker inspect --format '{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}} {{.State.ExitCode}}' \
        $(containers_of --all))"
    echo "$states"
    [[ "$(grep -c ' running healthy ' <<<"$states")" == 7 && "$(grep -c ' exited  *0$' <<<"$states")" == 1 ]]
}

# containers_of [--all] [SERVICE]: ids of running containers (or of all).
containers_of() {
    local options=(--quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")
    [[ "${1:-}" != --all ]] || { options+=(--all) && shift; }
    [[ -z "${1:-}" ]] || options+=(--filter "label=com.docker.compose.service=$1")
    docker ps "${options[@]}"
}

cluster_is_gone() {
    step 'down'
    check 'down -v' compose down --volumes --timeout 10
    local label="label=com.docker.compose.project=$COMPOSE_PROJECT_NAME"
    equal 'no container is left' '' "$(docker ps --all --quiet --filter "$label")"
    equal 'no volume is left' '' "$(docker volume ls --quiet --filter "$label")"
    equal 'no network is left' '' "$(docker network ls --quiet --filter "$label")"
}

# However far it came.
cluster_down() {
    [[ -n "$cluster_started" ]] || return 0
    compose --profile grafana down --volumes --remove-orphans --timeout 2 >/dev/null 2>&1
}
