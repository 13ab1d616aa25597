"""From a configuration to running sandboxes, and their end: what Inspect's hooks do.

`environment.ProviderSandboxEnvironment` receives the hooks and calls the functions of this package:

| hook | function |
|---|---|
| `task_init_environment` | `images.image_variables` |
| `task_init` | `startup.prepare`: checks credentials, removes what earlier runs left, builds the images |
| `sample_init` | `create.start`: creates the sandbox of a sample and waits until its services are ready |
| `sample_cleanup` | `ending.finish`: terminates the sandbox and writes its metrics into the sample's log |
| `task_cleanup` | `ending.end`: terminates what is left |

State belongs to one run of Inspect (`run.Run`): the images that were built, the directories of tasks, the running sandboxes.
Nothing is looked up by task name, because Inspect passes three different forms of it to the hooks.
"""
