"""edgeai: an edge inference runtime for low-power hardware."""

import os

# onnxruntime's wheels phone home by default. Every path to it leads through this package, so the switch stands here,
# before anything else is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
__all__ = ["__version__"]
