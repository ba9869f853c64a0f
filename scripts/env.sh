# shellcheck shell=bash
# Sourced by the scripts beside it: the project's Python environment and Debian packages.
#
#   root            the project's folder
#   venv            its Python environment (ASTCREDIT_VENV, else .venv)
#   say TEXT        a line on stderr
#   die TEXT        the same, and exit 1
#   ensure_venv X   make `venv`, with extra X of setup.cfg ("" for none); does nothing when it is there
#   ensure_debian PROGRAM:PACKAGE …   install the packages of programs that are missing, where that
#                   can be done (root on Debian); never starts a service; 1 if one is still missing
#   ensure_galera   the same for the cluster of MariaDB servers: a library, and rsync
#   quietly WHAT COMMAND …   run, show the output only when it fails

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${ASTCREDIT_VENV:-$root/.venv}

# pip: no questions, no advice, no warning about being root or about a HOME that is not writable.
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$0: $*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

quietly() {
    local what=$1 log status=0
    shift
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then
        say "$what failed:"
        tail -n 100 "$log" >&2
    fi
    rm -f "$log"
    return "$status"
}

is_debian_root() { [ "$(id -u)" -eq 0 ] && have apt-get && have dpkg; }

# Install Debian packages without starting the services that they bring: policy-rc.d is how Debian
# asks whether it may (101 = no). A machine's own policy-rc.d stays as it is.
install_debian() {
    local policy=/usr/sbin/policy-rc.d made=no status=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=yes
    fi
    say "installing Debian packages: $*"
    quietly 'apt-get update' apt-get -q update || true
    quietly "apt-get install $*" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l \
        apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" || status=$?
    [ "$made" = no ] || rm -f "$policy"
    return "$status"
}

ensure_debian() {
    local pair wanted=()
    for pair in "$@"; do
        have "${pair%%:*}" && continue
        [[ " ${wanted[*]-} " == *" ${pair#*:} "* ]] || wanted+=("${pair#*:}")
    done
    [ "${#wanted[@]}" -eq 0 ] && return 0
    is_debian_root || return 1
    install_debian "${wanted[@]}" || return 1
    hash -r
    for pair in "$@"; do
        have "${pair%%:*}" || return 1
    done
}

ensure_galera() {
    local library=/usr/lib/galera/libgalera_smm.so
    ensure_debian rsync:rsync || return 1
    [ -e "$library" ] && return 0
    is_debian_root && install_debian galera-4 && [ -e "$library" ]
}

python_is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# The first Python that is new enough; as root on Debian it is installed where there is none. Before
# one of the user's own (pyenv) comes the system's, if it can make environments: distributions build
# it with profile-guided optimization, and calls take a seventh less of it.
find_python() {
    local name system=/usr/bin/python3
    "$system" -c 'import ensurepip, venv' 2>/dev/null || system=
    for name in ${PYTHON:-} $system python3 python3.11 python3.12 python3.13 python3.14; do
        if have "$name" && python_is_new_enough "$name"; then
            printf '%s\n' "$name"
            return 0
        fi
    done
    return 1
}

make_venv() {
    local python
    if ! python=$(find_python); then
        is_debian_root || die 'Python 3.11 or newer is needed'
        install_debian python3 python3-venv || exit 1
        python=$(find_python) || die 'Python 3.11 or newer is needed'
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        is_debian_root || die "$python cannot make environments (Debian: apt-get install python3-venv)"
        local version
        version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        install_debian "$version" || exit 1
    fi
    quietly 'python -m venv' "$python" -m venv --clear "$venv" || exit 1
}

# What the environment was made from: when one of these changes, it is made anew.
venv_recipe() {
    printf '%s\n' "$root" "$1"
    cat "$root/setup.cfg" "$root/pyproject.toml"
}

# An environment with the tests' tools will do for the program alone.
venv_is_current() {
    local extra
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' 2>/dev/null || return 1
    for extra in "$1" test; do
        if [ -f "$venv/recipe-$extra" ] && venv_recipe "$extra" | cmp -s - "$venv/recipe-$extra"; then
            return 0
        fi
    done
    return 1
}

ensure_venv() {
    local extra=${1:-}
    if venv_is_current "$extra"; then return 0; fi
    # Two scripts at once must not install into the same folder.
    if have flock; then
        exec 9>"$venv.lock"
        flock 9
    fi
    if ! venv_is_current "$extra"; then install_into_venv "$extra"; fi
    exec 9>&-
}

install_into_venv() {
    local extra=$1
    "$venv/bin/python" -c 'import pip' 2>/dev/null || make_venv
    say "installing astcredit${extra:+ and its tools for $extra} into $venv"
    quietly 'pip install' "$venv/bin/python" -m pip install --quiet \
        --editable "$root${extra:+[$extra]}" || exit 1
    venv_recipe "$extra" >"$venv/recipe-$extra.new"
    mv "$venv/recipe-$extra.new" "$venv/recipe-$extra"
}
