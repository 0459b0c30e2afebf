# shellcheck shell=bash disable=SC2034
# Shared by the test host's scripts: messages, cache paths, the machine's own package mirror.

TESTHOST_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TESTHOST_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/vmm/testhost

# die MESSAGE: 125 means the test host itself failed, as opposed to the command run in it.
die() {
    echo "testhost: $*" >&2
    exit 125
}

say() { echo "testhost: $*" >&2; }

# The Debian mirror this machine's apt uses (deb822 files first, then one-line sources).
debian_mirror() {
    local uri
    uri=$(awk '/^URIs:/ && /\/debian\/?$/ {print $2; exit}' /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
    [[ -n $uri ]] || uri=$(awk '$1 == "deb" {for (i = 2; i <= NF; i++) if ($i ~ /\/debian\/?$/) {print $i; exit}}' \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true)
    [[ -n $uri ]] || die "no Debian mirror found in /etc/apt"
    echo "$uri"
}

# apt's proxy as environment, for tools (debootstrap's wget) that do not read apt.conf.
export_apt_proxy() {
    local proxy
    proxy=$(apt-config dump | sed -n 's/^Acquire::http::Proxy "\(.*\)";/\1/p')
    [[ -z $proxy ]] || export http_proxy=$proxy
}

# need TOOL...: all of these must be installed.
need() {
    local tool
    for tool; do command -v "$tool" >/dev/null || die "$tool is not installed"; done
}
