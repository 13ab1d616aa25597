# Becomes the image registry.
exec tini-static -- docker-registry serve "$dir/registry.json"
