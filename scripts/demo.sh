#!/usr/bin/env bash
# Builds Quartet and walks through what it does: each step says what it shows and where the source
# stands, shows the commands and what they print, and is checked. Needs bash, cargo and python3; steps
# with curl and wget are left out where those are missing.
#
# Usage: demo.sh [--pause] [SECTION...]
#        demo.sh --list
#
# Each section is a file in scripts/demo/ and runs alone, too. Everything happens in a temporary folder
# with a copy of data/, on free ports, so the demo can run anywhere, and several times at once. Neither
# a process nor a file is left behind.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
repository=$PWD
sections=(code queue work crowd history file errors)
. scripts/demo/helpers.sh

pause=no
chosen=()
for word in "$@"; do
    case $word in
        --list) list_sections; exit 0 ;;
        --pause) pause=yes ;;
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' scripts/demo.sh; exit 0 ;;
        -*) refuse "unknown option '$word', the options are --list and --pause" ;;
        *) is_section "$word" || refuse "unknown section '$word', the sections are ${sections[*]}"
            chosen+=("$word") ;;
    esac
done
[ "$pause" = no ] || [ -t 0 ] || refuse '--pause waits for a key, so standard input must be a terminal'
[ "${#chosen[@]}" -gt 0 ] || chosen=("${sections[@]}")
check_sources

prepare
for name in "${chosen[@]}"; do
    . "$repository/scripts/demo/$name.sh"
    end_step
done
sum_up
