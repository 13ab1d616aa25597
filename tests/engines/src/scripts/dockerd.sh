# Becomes dockerd. Arguments: further options of dockerd.
exec tini-static -- dockerd --config-file "$dir/dockerd.json" --data-root "$dir/data" \
    --pidfile /run/dockerd.pid --host "unix://$dir/engine.sock" "$@"
