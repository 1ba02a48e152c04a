#!/bin/sh
# Fetches what makes this instance a node, and runs it. It is kept apart because it holds secrets.
set -u
umask 077

fetch() {
    fetch-secret --name fleet/prod/web-1
}

if [ -e '/var/lib/fleetwright/bootstrapped' ]; then
    mkdir -p /run/cluster-api
    echo success >/run/cluster-api/bootstrap-success.complete
    exit 0
fi
# In memory: it does not outlive the instance's next start.
mkdir -p /run/fleetwright
payload=/run/fleetwright/payload.sh
pause=2
left=12
while [ "$left" -gt 0 ]; do
    if fetch >"$payload" && [ "$(tail -n 1 "$payload")" = '# fleetwright: end of payload' ]; then
        /bin/sh "$payload"
        result=$?
        rm -f "$payload"
        exit "$result"
    fi
    left=$((left - 1))
    echo "fleetwright: the payload cannot be fetched, again in $pause s ($left more)"
    sleep "$pause"
    pause=$((pause * 2))
    if [ "$pause" -gt 60 ]; then
        pause=60
    fi
done
rm -f "$payload"
echo "fleetwright: the payload cannot be fetched" >&2
exit 1
