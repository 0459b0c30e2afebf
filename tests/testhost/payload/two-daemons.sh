# For payloads that source this: two vmmd of one test host, which know each other, and a guest on a console. Set `here` and `store` before.
# Every check prints "ok: ..." or ends with "FAILED: ...".
declare -A port=([one]=8441 [two]=8442) daemon=()
ctl() { # one|two ARGUMENTS...
    local socket=/run/$1/vmmd.sock
    shift
    /payload/vmmctl/vmmctl --host "$socket" "$@"
}
failed() {
    echo "FAILED: $*"
    tail -20 /tmp/console
    for each in one two; do
        ctl $each vm list
        ctl $each vm show g
        tail -25 /tmp/$each.log
    done
    exit 1
}
ok() { echo "ok: $*, at $SECONDS s"; }
count() { tr -d '\r' </tmp/console | grep -c "$1"; }
more() { # TEXT COUNT SECONDS: the guest says it so often from now on
    local wanted=$(($(count "$1") + $2)) end=$((SECONDS + $3))
    until [ "$(count "$1")" -ge $wanted ]; do
        ! grep -q 'GUEST failed' /tmp/console || failed "$(grep 'GUEST failed' /tmp/console)"
        [ $SECONDS -lt $end ] || failed "the guest does not say '$1'"
        sleep 0.5
    done
}
state() { # one|two VM TEXT SECONDS: its vmmd says it of the VM
    local end=$((SECONDS + $4))
    until ctl "$1" vm show "$2" | grep -qE "^state: +$3"; do
        [ $SECONDS -lt $end ] || failed "$2 is not $3 at $1: $(ctl "$1" vm show "$2")"
        sleep 0.5
    done
}
start_vm() { # one|two VM
    ctl "$1" vm start "$2" >/tmp/said 2>&1
    ctl "$1" vm show "$2" | grep -qE '^state: +running' || failed "vm start: $(cat /tmp/said)"
}
start() { # one|two: a vmmd with folders of its own, which the other one may ask
    local other=two
    [ "$1" = one ] || other=one
    mkdir -p /run/"$1" /var/lib/"$1"
    cat >/tmp/"$1".yaml <<END
listen: https://127.0.0.1:${port[$1]}
certificate: $here/$1.crt
key: $here/$1.key
clientCa: $here/ca.crt
startTimeout: 600
peers: {certificate: $here/$1.crt, key: $here/$1.key, ca: $here/ca.crt}
principals:
  - {name: $other, role: peer, certificate: "sha256:$(cat $here/$other.print)"}
END
    /payload/vmmd/vmmd --config /tmp/"$1".yaml --state /var/lib/"$1" --run /run/"$1" --storage $store >>/tmp/"$1".log 2>&1 &
    daemon[$1]=$!
    for _ in $(seq 600); do ctl "$1" vm list >/dev/null 2>&1 && return; sleep 0.2; done
    failed "vmmd $1 does not answer"
}
