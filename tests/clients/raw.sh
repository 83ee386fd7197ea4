# Requests through `openssl s_client`: `raw.sh PORT AUTHORITY COOKIE HOME`.
set -eu

port=$1 authority=$2 cookie=$3 home=$4

fail() {
    echo "raw.sh: $*" >&2
    exit 1
}
connect() {
    timeout 20 openssl s_client -connect "localhost:$port" -servername localhost -CAfile "$authority" \
        -verify_return_error "$@" 2>&1 || true
}
request() {
    printf 'GET /whoami HTTP/1.1\r\nHost: localhost\r\nCookie: %s\r\nConnection: %s\r\n\r\n' "$cookie" "$1"
}

# Both versions, and what the proxy says of itself.
for version in tls1_2 tls1_3; do
    said=$(request close | connect -"$version" -alpn http/1.1 -ign_eof)
    case $said in *"HTTP/1.1 200 OK"*) ;; *) fail "$version: $said" ;; esac
    case $said in *"x-backend: $home"*) ;; *) fail "$version: not at $home: $said" ;; esac
    case $said in *"ALPN protocol: http/1.1"*) ;; *) fail "$version: no ALPN: $said" ;; esac
    case $said in *"Verify return code: 0 (ok)"*) ;; *) fail "$version: not verified: $said" ;; esac
done

# Three at once: each is answered, in order.
said=$({ request keep-alive; request keep-alive; request close; } | connect -alpn http/1.1 -quiet)
[ "$(printf %s "$said" | grep -ac "x-backend: $home")" = 3 ] || fail "pipelined: $said"

# HTTP/2 is preferred when both are offered, and needs no ALPN to be left out.
said=$(connect -alpn http/1.1,h2 </dev/null)
case $said in *"ALPN protocol: h2"*) ;; *) fail "h2 is not preferred: $said" ;; esac
said=$(connect -alpn spdy/3 </dev/null)
case $said in *"no application protocol"*) ;; *) fail "an unknown protocol is agreed to: $said" ;; esac

# Old versions and old ciphers are refused.
for version in tls1 tls1_1; do
    said=$(request close | connect -"$version" -cipher ALL:@SECLEVEL=0 -ign_eof)
    case $said in *"HTTP/1.1"*) fail "$version is spoken: $said" ;; esac
done
for cipher in AES128-SHA AES256-GCM-SHA384 ECDHE-ECDSA-AES128-SHA NULL-SHA256 aNULL; do
    said=$(request close | connect -tls1_2 -cipher "$cipher:@SECLEVEL=0" -ign_eof)
    case $said in *"HTTP/1.1"*) fail "$cipher is spoken: $said" ;; esac
done

# A client that wants to negotiate anew is refused: `R` at the beginning of what it reads at once, hence the pause.
said=$({ printf 'R\n'; sleep 1; request close; } | connect -tls1_2 -alpn http/1.1)
case $said in *RENEGOTIATING*) ;; *) fail "nothing was negotiated anew: $said" ;; esac
case $said in *"HTTP/1.1 200"*) fail "negotiated anew: $said" ;; esac

# A session is resumed by its ticket.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
request close | connect -tls1_2 -alpn http/1.1 -ign_eof -sess_out "$folder/session" >/dev/null
said=$(request close | connect -tls1_2 -alpn http/1.1 -ign_eof -sess_in "$folder/session")
case $said in *"Reused, TLSv1.2"*"HTTP/1.1 200 OK"*) ;; *) fail "not resumed: $said" ;; esac
