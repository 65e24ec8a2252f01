#!/bin/sh
# SWUpdate calls this with preinst, then writes the files of sw-description, then with postinst.
set -eu
. "${EDGEPACK_CONF:-/etc/edgepack/update.conf}"
export EDGEPACK_STORE
inbox=@INBOX@ # make-swu.sh says where

case "${1:-}" in
preinst) mkdir -p "$inbox" ;;
postinst)
    trap 'rm -f "$inbox/model.epk"' EXIT # the store has its own copy, or refused it
    $RUNTIME import "$inbox/model.epk" --root "$ROOT" --name "$NAME"
    ;;
esac
