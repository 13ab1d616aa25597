"""Compose documents: everything that Docker Compose accepts and a sandbox can do.

Inspect's own parser refuses much of what Docker Compose accepts (`version`, build arguments, integers) and reads YAML 1.1, so
this package reads the files itself:

1. `goyaml` reads YAML with Docker Compose's types.
2. `document` fills in variables (`envfile`) and resolves `include` and `extends`.
3. `translate` turns the document into a plan, with the help of `services`, `order`, `volumes`, `binds`, `networks`,
`resources`, `healthcheck` and `extensions`.

Each key of a document takes effect, or has no meaning in a sandbox, or gives a warning that names it, or is an error. No key is
ignored silently.
"""

from .translate import of_file, of_object, plan

__all__ = ["of_file", "of_object", "plan"]
