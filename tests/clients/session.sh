# A session through curl: `session.sh BASE AUTHORITY PROTOCOL`, where PROTOCOL is curl's option for it.
set -eu

base=$1 authority=$2 protocol=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
jar=$folder/jar

ask() {
    curl --silent --show-error --max-time 20 --noproxy '*' --cacert "$authority" "$protocol" \
        --cookie "$jar" --cookie-jar "$jar" --dump-header "$folder/head" "$@"
}
home() {
    tr -d '\r' <"$folder/head" | sed -n 's/^x-backend: //Ip' | sort -u
}
# Whether the answer is this one, and from the session's home.
same() {
    text=$1
    shift
    got=$(ask "$@")
    if [ "$got" != "$text" ] || [ "$(home)" != "$home" ]; then
        echo "session.sh $protocol: $*: got '$got' from '$(home)', not '$text' from '$home'" >&2
        exit 1
    fi
}

[ "$(ask "$base/login?ada")" = ada ]
home=$(home)

same ada "$base/whoami"
# One connection for all, as long as the protocol keeps one.
same adaadaadaadaada "$base/whoami" "$base/whoami" "$base/whoami" "$base/whoami" "$base/whoami"
same "ada 5" --data hello "$base/upload"
head -c 3000000 /dev/zero >"$folder/large"
same "ada 3000000" --upload-file "$folder/large" "$base/upload"
same "ada 3000000" --header 'Expect: 100-continue' --data-binary "@$folder/large" "$base/upload"
same "ada 0" --request POST --header 'Content-Length: 0' "$base/upload"
if [ "$protocol" != --http1.0 ]; then
    # Of unknown length: chunked, or frames.
    same "ada 3000000" --header 'Transfer-Encoding: chunked' --request POST --upload-file - "$base/upload" \
        <"$folder/large"
fi
same ada --form "file=@$folder/large" "$base/whoami"

# HEAD has the fields of GET, and the connection goes on after it.
ask --head "$base/whoami" >"$folder/answer"
grep -qi '^content-length: 3' "$folder/answer"
[ "$(home)" = "$home" ]
same ada "$base/whoami"

echo "$home"
