# shellcheck shell=bash
# Packages of another Debian suite, without touching this machine's own package state.

# apt_options WORK SUITE: fills the array `options` with those of an apt root below WORK/apt, for the suite's main section.
apt_options() {
    local work=$1 suite=$2
    mkdir -p "$work"/apt/{state/lists/partial,cache/archives/partial}
    : >"$work/apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $suite main" >"$work/apt/sources.list"
    # shellcheck disable=SC2034 # the caller's
    options=(-qq -o "Dir::State=$work/apt/state" -o "Dir::Cache=$work/apt/cache" -o "Dir::State::status=$work/apt/status"
        -o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=- -o APT::Sandbox::User=root
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
}

# apt_also WORK SUITE: packages of a further suite, too.
apt_also() {
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $2 main" >>"$1/apt/sources.list"
}
