"""Compose documents: everything that Docker Compose accepts and a sandbox with sidecars can do.

The Inspect AI plugin and the environment for Harbor use this package. It needs PyYAML, so nothing else imports it: install
`sandbox-host[compose]`. It reads YAML and variables itself, because other libraries for Python follow other rules than Docker
Compose.

1. `goyaml` reads YAML with Docker Compose's types.
2. `document` fills in variables (`envfile`), merges files, and resolves `include` and `extends`.
3. `translate` turns the document into a plan (`plan`), with the help of `services`, `order`, `volumes`, `binds`, `networks`,
`resources`, `healthcheck` and `extensions`. `traits` is what it has to know about the caller and the provider.
4. `specification` turns parts of the plan into specifications, and `startup` brings the services up: it waits for them
(`readiness`), adds those that wait for others, and lets them reach each other by name (`hosts`).

Each key of a document takes effect, or has no meaning in a sandbox, or gives a warning that names it, or is an error. No key is
ignored silently.
"""
