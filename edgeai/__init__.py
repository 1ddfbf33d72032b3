"""edgeai: an edge inference runtime for low-power hardware."""

import os

# onnxruntime's wheels phone home by default. Every path to it leads through this package, so the switch stands here,
# before anything else is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Else pydantic reads what every installed package says of itself, at each start, in search of plugins for itself.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

__version__ = "0.1.0"
__all__ = ["__version__"]
