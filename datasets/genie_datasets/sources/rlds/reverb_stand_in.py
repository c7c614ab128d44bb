"""Lets `import rlds` succeed without dm-reverb, whose last release cannot be loaded beside current TensorFlow.

`rlds.transformations.pattern` imports it at the top; only `pattern_map` and its kin use it, and nothing here does.
"""

import sys
from types import ModuleType


def import_rlds():
    """The module `rlds`, with a stand-in for `reverb` if the real one does not load."""
    try:
        import reverb
    except ImportError:
        for name in [n for n in sys.modules if n == "reverb" or n.startswith("reverb.")]:
            del sys.modules[name]  # what a failed import left behind
        writer = ModuleType("reverb.structured_writer")
        for name in ("Config", "Pattern", "ReferenceStep", "Condition"):
            setattr(writer, name, type(name, (), {}))
        reverb = ModuleType("reverb")
        reverb.structured_writer = writer
        sys.modules.update({"reverb": reverb, "reverb.structured_writer": writer})
    import rlds

    return rlds
