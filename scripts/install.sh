#!/bin/sh
# Puts the programs, their manual pages, completions and systemd units below a folder, or removes them.
#
# Usage: install.sh [--prefix DIR] [--uninstall]
#
# DIR is /usr/local unless told otherwise. The programs are built first (cargo build --release);
# QUARTET_PROGRAMS may name a folder with programs that are built already. Files that are there already
# are replaced, and --uninstall removes the same files and no folders. systemd reads units below
# /usr/local and /usr and nowhere else, after `systemctl daemon-reload`.
set -eu
from=$PWD
cd "$(dirname "$0")/.."
programs='code-server queue-server history-server file-server
    code-client queue-client history-client file-client'

refuse() {
    printf 'install.sh: %s\n' "$1" >&2
    exit 2
}

prefix=/usr/local
does=install
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) [ $# -gt 1 ] || refuse '--prefix needs a folder'; prefix=$2; shift ;;
        --prefix=*) prefix=${1#*=} ;;
        --uninstall) does=uninstall ;;
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) refuse "unknown argument '$1', the options are --prefix and --uninstall" ;;
    esac
    shift
done
case $prefix in
    /*) ;;
    *) prefix=$from/$prefix ;;
esac
case $prefix in
    # Others mean something in a unit.
    *[!A-Za-z0-9/._+-]*) refuse "the prefix is made of letters, digits and / . _ + -, not '$prefix'" ;;
esac
# In a unit, a path has no detour.
[ "$does" = uninstall ] || mkdir -p "$prefix"
[ ! -d "$prefix" ] || prefix=$(cd "$prefix" && pwd)

# install_file MODE SOURCE TARGET: a program that runs is replaced, and not written to. A unit gets the
# prefix's programs.
install_file() {
    target=$prefix/$3
    mkdir -p "${target%/*}"
    case $2 in
        *.service) sed "/^ExecStart=/s#/usr/local/bin/#$prefix/bin/#" "$2" >"$target.new" ;;
        *) cp "$2" "$target.new" ;;
    esac
    chmod "$1" "$target.new"
    mv -f "$target.new" "$target"
}

uninstall_file() {
    rm -f "$prefix/$3"
}

if [ "$does" = install ] && [ -z "${QUARTET_PROGRAMS:-}" ]; then
    cargo build --release --bins
fi
built=${QUARTET_PROGRAMS:-${CARGO_TARGET_DIR:-target}/release}

for name in $programs; do
    "${does}_file" 755 "$built/$name" "bin/$name"
    "${does}_file" 644 "data/man/$name.1" "share/man/man1/$name.1"
    "${does}_file" 644 "data/completions/bash/$name" "share/bash-completion/completions/$name"
    "${does}_file" 644 "data/completions/zsh/_$name" "share/zsh/site-functions/_$name"
    "${does}_file" 644 "data/completions/fish/$name.fish" "share/fish/vendor_completions.d/$name.fish"
done
for unit in data/systemd/*.service data/systemd/*.socket; do
    "${does}_file" 644 "$unit" "lib/systemd/system/${unit##*/}"
done
