"""What this package needs of Harbor's options. Harbor itself is not typed for other packages."""

from typing import ClassVar

class EnvironmentOptions:
    model_config: ClassVar[dict[str, object]]
    auto_mounting: bool
