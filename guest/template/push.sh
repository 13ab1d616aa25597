#!/bin/sh
# Pushes a component to an OCI registry, in the form that `sandbox-host plugin pull` and other programs for WebAssembly expect: a
# manifest with one layer of the type application/wasm. Prints the digest of the manifest. Needs curl and sha256sum.
#
#   sh push.sh FILE REGISTRY REPOSITORY TAG [OPTIONS OF CURL]
#
# REGISTRY is a URL such as https://registry.example. For a registry with a login, give curl a file with the password
# (--netrc-file FILE), or the header of a token in a file (-H @FILE).
set -eu
file=$1 base=$2/v2/$3 tag=$4
shift 4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

digest() { sha256sum <"$1" | sed 's/^\([0-9a-f]*\).*/sha256:\1/'; }
described() { printf '{"mediaType":"%s","digest":"%s","size":%d}' "$1" "$(digest "$2")" "$(wc -c <"$2")"; }

# Uploads the content of a file. The registry says where to.
upload() {
    from=$1
    shift
    to=$(curl -fsS "$@" -X POST -o "$folder/answer" -w '%header{location}' "$base/blobs/uploads/")
    case $to in /*) to=${base%%/v2/*}$to ;; esac
    case $to in *\?*) to="$to&" ;; *) to="$to?" ;; esac
    curl -fsS "$@" -o "$folder/answer" -H 'Content-Type: application/octet-stream' -T "$from" "${to}digest=$(digest "$from")"
}

printf '{}' >"$folder/config"
upload "$folder/config" "$@"
upload "$file" "$@"
printf '{"schemaVersion":2,"mediaType":"%s","artifactType":"application/wasm","config":%s,"layers":[%s]}' \
    application/vnd.oci.image.manifest.v1+json "$(described application/vnd.oci.empty.v1+json "$folder/config")" \
    "$(described application/wasm "$file")" >"$folder/manifest"
curl -fsS "$@" -o "$folder/answer" -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' -T "$folder/manifest" \
    "$base/manifests/$tag"
digest "$folder/manifest"
