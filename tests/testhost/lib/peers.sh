# For scripts that source this: certificates of hosts that know each other.
# make_peers FOLDER NAME...: an authority, and for each name a certificate for 127.0.0.1, server to everybody and client to the others, with its SHA-256 in NAME.print.
make_peers() {
    local folder=$1 name
    shift
    (
        cd "$folder"
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=hosts 2>/dev/null
        for name in "$@"; do
            openssl req -newkey rsa:2048 -nodes -keyout "$name.key" -out "$name.csr" -subj "/CN=$name" 2>/dev/null
            openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out "$name.crt" \
                -extfile <(printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n') 2>/dev/null
            openssl x509 -in "$name.crt" -noout -fingerprint -sha256 | sed 's/.*=//; s/://g' | tr 'A-F' 'a-f' | tr -d '\n' >"$name.print"
            chmod 600 "$name.key"
        done
    )
}
