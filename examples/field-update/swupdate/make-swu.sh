#!/bin/sh
# make-swu.sh MODEL.epk OUT.swu [INBOX]: pack a signed .epk for SWUpdate.
# SWU_KEY and SWU_CERT (PEM) sign the image as well (CMS), for an SWUpdate that takes no other.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
inbox=${3:-/var/lib/edgepack-inbox}
sha256() { sha256sum "$work/$1" | cut -d' ' -f1; }

cp "$1" "$work/model.epk"
sed "s#@INBOX@#$inbox#" "$here/edgepack.sh" > "$work/edgepack.sh"
chmod +x "$work/edgepack.sh"
sed -e "s#@INBOX@#$inbox#" -e "s/@MODEL@/$(sha256 model.epk)/" \
    -e "s/@SCRIPT@/$(sha256 edgepack.sh)/" "$here/sw-description" > "$work/sw-description"
signature=
if [ -n "${SWU_KEY:-}" ]; then
    signature=sw-description.sig
    openssl cms -sign -binary -nosmimecap -outform DER -in "$work/sw-description" \
        -out "$work/$signature" -signer "$SWU_CERT" -inkey "$SWU_KEY"
fi
(cd "$work" && printf '%s\n' sw-description $signature edgepack.sh model.epk |
    cpio -o -H crc --quiet) > "$2"
