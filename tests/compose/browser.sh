# Browsers: curl with the cluster's own authority, a fresh connection for each request. Sourced by run.

# ask REPLICA USER PATH [CURL OPTIONS]: as this user, who has one cookie jar for the whole cluster.
ask() {
    local port="$((8442 + $1))" jar="$work/jar-$2" path="$3"
    shift 3
    curl --silent --show-error --noproxy '*' --max-time 20 --cacert "$tree/certs/ca.pem" \
        --resolve "localhost:$port:$PUBLISH" --cookie "$jar" --cookie-jar "$jar" "$@" "https://localhost:$port$path"
}

# field NAME REPLICA USER PATH [CURL OPTIONS]: a member of the answer's JSON, or the answer if it is none. What is
# wrong with it is for whoever compares it to say.
field() {
    local answer
    answer="$(ask "${@:2}" 2>&1)" || true
    jq --raw-output --compact-output ".$1" <<<"$answer" 2>/dev/null || echo "no JSON: $answer"
}

# status REPLICA USER PATH: the status code alone, 000 without an answer.
status() { ask "$@" --output /dev/null --write-out '%{http_code}' 2>/dev/null || true; }

# answered REPLICA USER PATH
answered() { same 200 "$(status "$@")"; }

login() { field session_app "$1" "$2" /login --data "user=$2"; }

home_of() { field backend "$1" "$2" /whoami; }

# known REPLICA USER: at home, and remembered there.
known() { same "$2 known" "$(field user "$1" "$2" /whoami) $(field session "$1" "$2" /whoami)"; }

# admin REPLICA PATH [CURL OPTIONS]: what operators see, by the published port.
admin() {
    # As above.
    curl --silent --show-error --noproxy '*' --max-time 20 "${@:3}" "http://$PUBLISH:$((9089 + $1))$2" || true
}

# homing REPLICA COMMAND...: the program's own commands, in the replica's container.
homing() { docker exec "$(containers_of "homing-$1")" homing "${@:2}"; }

# serving REPLICA: how many backends are up.
serving() { homing "$1" status --json | jq '[.pools[].backends[] | select(.state == "up")] | length' || true; }

prometheus() { curl --silent --show-error --noproxy '*' --max-time 10 --get "http://$PUBLISH:9095/api/v1/$1" "${@:2}"; }
