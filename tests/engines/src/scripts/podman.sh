# Becomes the API service of podman.
export HOME="$dir/home" CONTAINERS_CONF="$dir/containers.conf" CONTAINERS_STORAGE_CONF="$dir/storage.conf" \
    CONTAINERS_REGISTRIES_CONF="$dir/registries.conf"
exec tini-static -- podman system service --time=0 "unix://$dir/engine.sock"
