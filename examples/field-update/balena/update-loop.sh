#!/bin/sh
# Look for a release every hour.  While one is switched to, balena may not replace this container:
# the lock file is the one that its supervisor honours (balena calls it an update lock).
set -eu
. "${EDGEPACK_CONF:-/etc/edgepack/update.conf}"
export EDGEPACK_STORE
lock=${BALENA_LOCK:-/tmp/balena/updates.lock}

trap 'rm -f "$lock"; exit 143' TERM INT
while :; do
    code=0
    find "$lock" -mmin +360 -delete 2> /dev/null || : # of a container that was killed meanwhile
    if (set -C && : > "$lock") 2> /dev/null; then # made only if it was not there
        $RUNTIME update --channel "$CHANNEL" --root "$ROOT" --name "$NAME" \
            --device "${BALENA_DEVICE_UUID:-}" || code=$?
        rm -f "$lock"
    else
        echo "no update: $lock is held, or its folder is missing" >&2
    fi
    [ "$code" -eq 0 ] || [ "$code" -eq 7 ] || echo "update failed with $code; the release that ran keeps running" >&2
    [ -z "${ONCE:-}" ] || exit "$code"
    sleep 3600
done
