#!/bin/sh
# Writes the files of this instance and runs what makes it a node. It holds secrets.
set -eu
umask 077

# put PATH MODE OWNER CONTENT: whole or not at all.
put() {
    (umask 022 && mkdir -p "$(dirname "$1")")
    printf '%s' "$4" >"$1.new"
    chown "$3" "$1.new"
    chmod "$2" "$1.new"
    mv "$1.new" "$1"
}

