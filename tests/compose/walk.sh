# What people do with the cluster, and what has to come of it. Sourced by run.

walk() {
    hardened
    first_start
    one_session_two_replicas
    seen
    replica_dies
    shop_dies
    scaled
    redis_dies
    as_printed
    started_again
}

hardened() {
    step 'what the containers may do'
    local id name
    for id in $(containers_of); do
        name="$(docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}}' "$id")"
        check "$name: not root, no capability, nothing to gain, nothing to write" confined "$id"
    done
    equal 'all are published on one loopback address' "$PUBLISH" "$(
        docker inspect --format '{{range .NetworkSettings.Ports}}{{range .}}{{println .HostIp}}{{end}}{{end}}' $(containers_of) \
            | sed '/^$/d' | sort -u
    )"
}

confined() {
    local format='{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} {{.HostConfig.SecurityOpt}}'
    same 'true false [ALL] [] [no-new-privileges:true]' "$(docker inspect --format "$format" "$1")" || return
    # Not what was asked for, but what holds.
    local process
    process="$(docker exec "$1" cat /proc/1/status)"
    grep -q '^Uid:[[:space:]]*[1-9]' <<<"$process" || { grep ^Uid <<<"$process"; return 1; }
    grep -q '^CapEff:[[:space:]]*0*$' <<<"$process" || { grep ^CapEff <<<"$process"; return 1; }
    grep -q '^CapBnd:[[:space:]]*0*$' <<<"$process" || { grep ^CapBnd <<<"$process"; return 1; }
    grep -q '^NoNewPrivs:[[:space:]]*1$' <<<"$process" || { grep ^NoNewPrivs <<<"$process"; return 1; }
    ! docker exec "$1" touch /written 2>/dev/null
}

first_start() {
    step 'what was made at the first start'
    local name owner
    owner="$(stat --format %u "$tree/certs")"
    for name in localhost.key homing.secret admin.token; do
        equal "$name is for the replicas alone" '10001 600' "$(stat --format '%u %a' "$tree/certs/$name")"
    done
    equal 'ca.pem is for people' "$owner 644" "$(stat --format '%u %a' "$tree/certs/ca.pem")"
    equal "the authority's key is for the owner of the folder" "$owner 600" "$(stat --format '%u %a' "$tree/certs/ca.key")"
    made="$(fingerprints)"
    equal 'replica 1 has a certificate that its clients trust' 200 "$(status 1 nobody /healthz)"
    equal 'and so has replica 2' 200 "$(status 2 nobody /healthz)"
    local replica
    for replica in 1 2; do
        equal "plain HTTP leads to replica $replica" "https://localhost:$((8442 + replica))/cart" "$(
            curl --silent --noproxy '*' --output /dev/null --write-out '%{redirect_url}' \
                --header "Host: localhost:$((8079 + replica))" "http://$PUBLISH:$((8079 + replica))/cart"
        )"
    done
}

# Of every file that was made; whoever is not root sees when the secret ones were.
fingerprints() {
    sha256sum "$tree"/certs/*.* 2>/dev/null || true
    stat --format '%n %Y' "$tree"/certs/*.*
}

one_session_two_replicas() {
    step 'log in at replica 1, go on at replica 2'
    equal 'both replicas found three shops' '3 3' "$(eventually 30 has_serving 3 && echo "$(serving 1) $(serving 2)")"
    local home path
    home="$(login 1 ada)"
    check "ada is logged in at $home, which is a container" docker inspect "$home"
    ask 1 ada /cart/add?item=tea --request POST >/dev/null
    equal 'replica 2 shows her cart at once' '["tea"]' "$(field items 2 ada /cart)"
    equal 'from the same shop' "$home" "$(home_of 2 ada)"
    ask 2 ada /cart/add?item=milk --request POST >/dev/null
    equal 'and back' '["tea","milk"]' "$(field items 1 ada /cart)"
    check '40 requests in turns, all at home' at_home_in_turns "$home" 40
    login_everybody
    check 'twelve more, each logged in at one replica, are known at the other at once' known_at_the_other
    check 'they are spread over all three shops' test "$(homes | sort -u | wc -l)" = 3
    local cookie
    cookie="$(awk '$6 == "session" { print $7 }' "$work/jar-ada")"
    check 'Redis knows sessions' redis_has_entries
    check 'and not one session id' redis_has_no "$cookie"
}

has_serving() { same "$1 $1" "$(serving 1) $(serving 2)"; }

at_home_in_turns() {
    local turn
    for ((turn = 0; turn < $2; turn++)); do same "$1" "$(home_of $((1 + turn % 2)) ada)" || return; done
}

users=()

login_everybody() {
    local number
    for number in {1..12}; do
        users+=("user-$number")
        login $((1 + number % 2)) "user-$number" >"$work/home-user-$number"
    done
}

known_at_the_other() {
    local number
    for number in {1..12}; do known $((2 - number % 2)) "user-$number" || return; done
}

# Where each was logged in.
homes() {
    local user
    for user in "${users[@]}"; do cat "$work/home-$user"; done
}

redis() { docker exec "$(containers_of redis)" redis-cli "$@"; }

redis_has_entries() {
    local size
    size="$(redis dbsize)"
    echo "$size"
    ((${size//[^0-9]/} >= 13))
}

redis_has_no() {
    local key
    [[ ${#1} -ge 16 ]] || { echo "no session id in the jar: '$1'"; return 1; }
    for key in $(redis --scan); do
        printf '%s\n' "$key"
        case "$(redis type "$key")" in
            string) redis get "$key" ;;
            hash) redis hgetall "$key" ;;
            stream) redis xrange "$key" - + ;;
            *set | list) redis sort "$key" by nosort ;;
        esac
    done >"$work/redis.txt"
    [[ -s "$work/redis.txt" ]] && ! grep -q "$1" "$work/redis.txt"
}

seen() {
    step 'what operators see'
    local replica token
    for replica in 1 2; do
        equal "replica $replica tells its state to nobody without the token" 401 \
            "$(admin "$replica" /api/v1/status --output /dev/null --write-out '%{http_code}')"
        equal "and shows the page" 200 "$(admin "$replica" / --output /dev/null --write-out '%{http_code}')"
    done
    token="$(compose exec -T homing-1 cat /certs/admin.token | tr -d '\r')"
    equal 'with the token as README.md reads it, all of it' ready \
        "$(admin 2 /api/v1/status --header "Authorization: Bearer $token" | jq --raw-output .phase)"
    check 'Prometheus scrapes both replicas' eventually 30 targets_up
    equal 'under the rules and alerts of this repository' "$(rules_shipped)" \
        "$(prometheus rules | jq '[.data.groups[].rules[]] | length')"
    check 'and counts the sessions' eventually 30 sessions_counted
    check 'no alert fires' no_alert
}

targets_up() {
    same '2' "$(prometheus targets | jq '[.data.activeTargets[] | select(.health == "up")] | length')"
}

rules_shipped() { cat "$tree"/config/prometheus/{rules,alerts}/*.yml | grep --count --extended-regexp '^ *(- )?(record|alert): '; }

sessions_counted() {
    local count
    count="$(prometheus query --data-urlencode 'query=sum(homing_sessions{state="live"})' | jq --raw-output '.data.result[0].value[1]')"
    echo "$count"
    ((count >= 13))
}

no_alert() {
    local firing='[.data.alerts[] | select(.state == "firing") | .labels.alertname]'
    same '[]' "$(prometheus alerts | jq --compact-output "$firing")"
}

replica_dies() {
    step 'replica 1 dies'
    local home
    home="$(home_of 2 ada)"
    docker kill "$(containers_of homing-1)" >/dev/null
    check 'its clients go to replica 2, and every one is known there' all_known_at 2
    equal 'ada among them, at home' "$home" "$(home_of 2 ada)"
    compose start homing-1 >/dev/null 2>&1
    check 'it comes back' eventually 60 ready 1
    check 'and knows everybody, though it remembered nobody' all_known_at 1
}

ready() { homing "$1" probe; }

all_known_at() { all_of_known "$1" "${users[@]}" ada; }

# all_of_known REPLICA USER...
all_of_known() {
    local user
    for user in "${@:2}"; do known "$1" "$user" || return; done
}

shop_dies() {
    step 'a shop dies'
    local home other user lost=0 kept=0
    home="$(home_of 1 ada)"
    docker kill "$home" >/dev/null
    # An address without a machine refuses nothing: that nobody is there takes three attempts to find out.
    check 'whoever was there is answered by another one within seconds, at replica 1' eventually 15 answered 1 ada /whoami
    check 'and at replica 2' eventually 15 answered 2 ada /whoami
    other="$(home_of 2 ada)"
    check "by the same one at both" test "$other" != "$home" -a "$other" = "$(home_of 1 ada)"
    for user in "${users[@]}"; do
        if [[ "$(cat "$work/home-$user")" == "$home" ]]; then
            lost=$((lost + 1))
        elif known 2 "$user" >/dev/null; then
            kept=$((kept + 1))
        fi
    done
    equal "whoever was not there has noticed nothing: $lost were" $((${#users[@]} - lost)) "$kept"
    docker start "$home" >/dev/null
    check 'it comes back, with empty hands' eventually 60 has_serving 3
}

scaled() {
    step 'five shops instead of three'
    compose up --detach --scale app=5 >"$work/scale.log" 2>&1 || { cat "$work/scale.log" >&2; failed=$((failed + 1)); }
    check 'both replicas find the new ones by themselves' eventually 30 has_serving 5
    check 'which get sessions, too' eventually 60 new_shops_have_sessions
    compose up --detach --scale app=3 >"$work/scale.log" 2>&1 || { cat "$work/scale.log" >&2; failed=$((failed + 1)); }
    check 'three again' eventually 30 has_serving 3
    equal 'and nobody gets an error' 200 "$(status 2 ada /whoami)"
}

new_shops_have_sessions() {
    local number="$SECONDS$RANDOM"
    login 1 "new-$number" >/dev/null
    same 5 "$(homing 1 status --json | jq '[.pools[].backends[] | select(.state == "up" and .live > 0)] | length')"
}

redis_dies() {
    step 'Redis dies, and comes back empty'
    compose kill redis >/dev/null 2>&1
    local user codes late=(late-1 late-2 late-3 late-4 late-5 late-6)
    codes="$(for user in "${users[@]}"; do echo "$(status 1 "$user" /whoami) $(status 2 "$user" /whoami)"; done | sort -u)"
    equal 'nobody gets an error' '200 200' "$codes"
    for user in "${late[@]}"; do login 1 "$user" >/dev/null; done
    check 'whoever logs in now is known where they did' all_of_known 1 "${late[@]}"
    # Which has to guess, and tells Redis as much as replica 1 does.
    for user in "${late[@]}"; do home_of 2 "$user" >/dev/null; done
    compose start redis >/dev/null 2>&1
    check 'both replicas share again' eventually 30 sharing
    check 'whoever logged in meanwhile is at home at both, also where one of them had guessed wrong' \
        eventually 30 all_of_known 2 "${late[@]}"
    check 'and at replica 1' all_of_known 1 "${late[@]}"
}

sharing() {
    local replica
    for replica in 1 2; do
        admin "$replica" /metrics | grep '^homing_shared_up 1$' || return
    done
}

# What README.md gives to people, word by word; curl's own configuration leads it to our ports.
as_printed() {
    step 'README.md, as printed'
    local commands
    commands="$(awk '
        /^<!-- cluster-walk -->$/ { marked = 1; next }
        marked && /^```/          { if (fenced) exit; fenced = 1; next }
        fenced                    { print }
    ' "$tree/README.md" | sed "s|certs/cookies.jar|$work/jar-printed|g")"
    check 'there is something to do' grep -q 'docker-compose kill' <<<"$commands"
    printf 'fail\nnoproxy = "*"\nresolve = "localhost:8443:%s"\nresolve = "localhost:8444:%s"\n' "$PUBLISH" "$PUBLISH" \
        >"$work/.curlrc"
    check 'all of it works' printed "$commands"
    sed 's/^/        /' "$work/printed.out"
    equal 'and the cart is shown at both replicas, whatever has died' 4 "$(grep -o '"items":\["tea"\]' "$work/printed.out" | wc -l)"
}

printed() {
    (
        # There is no terminal here.
        docker-compose() {
            if [[ "$1" == exec ]]; then set -- exec -T "${@:2}"; fi
            command "${compose_command[@]}" "$@"
        }
        export CURL_HOME="$work"
        set -euo pipefail
        eval "$1" | tee "$work/printed.out"
    )
}

started_again() {
    step 'down and up again'
    compose stop --timeout 15 >/dev/null 2>&1
    equal 'the replicas ended as they should' '0 0' \
        "$(docker inspect --format '{{.State.ExitCode}}' $(containers_of --all homing-1) $(containers_of --all homing-2) | xargs)"
    compose up --detach >"$work/up.log" 2>&1 || { tail -n 20 "$work/up.log" >&2; failed=$((failed + 1)); }
    check 'every container is healthy' eventually 60 all_healthy
    equal 'with the certificates, secret and token of the first time' "$made" "$(fingerprints)"
}
