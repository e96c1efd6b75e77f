#!/bin/sh
# Makes an OCI layout by hand: one layer, a configuration, a manifest and an index, each named by its digest.
# Usage: hello.sh DIRECTORY
set -eu
out=$1
busybox=$(command -v busybox)
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac

root=$(mktemp -d)
trap 'rm -r "$root"' EXIT
mkdir -p "$root/bin" "$out/blobs/sha256"
cp "$busybox" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
printf '#!/bin/sh\necho "$GREETING, $*"\nwhile :; do busybox sleep 1; done\n' >"$root/bin/hello"
chmod 755 "$root/bin/busybox" "$root/bin/hello"

# Puts standard input among the blobs; prints its descriptor.
blob() {
    cat >"$out/blob"
    digest=$(sha256sum "$out/blob" | cut -d ' ' -f 1)
    size=$(wc -c <"$out/blob")
    mv "$out/blob" "$out/blobs/sha256/$digest"
    printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%d}' "$1" "$digest" "$size"
}

layer=$(tar -C "$root" -c bin | gzip -n | blob layer.v1.tar+gzip)
config=$(printf '{"os":"linux","architecture":"%s","config":{"Entrypoint":["hello"],"Cmd":["world"],"Env":["PATH=/bin","GREETING=hello"]}}' "$arch" | blob config.v1+json)
manifest=$(printf '{"schemaVersion":2,"config":%s,"layers":[%s]}' "$config" "$layer" | blob manifest.v1+json)
printf '{"imageLayoutVersion":"1.0.0"}' >"$out/oci-layout"
printf '{"schemaVersion":2,"manifests":[%s]}' "$manifest" >"$out/index.json"
