#!/bin/sh
# RAUC custom install handler: the bundle holds this script and one signed .epk; no slot is written.
set -eu
. "${EDGEPACK_CONF:-/etc/edgepack/update.conf}"
export EDGEPACK_STORE
echo "<< handler importing the model"
$RUNTIME import "$RAUC_BUNDLE_MOUNT_POINT"/model.epk --root "$ROOT" --name "$NAME"
