"""Imports `rlds` without dm-reverb, whose last release cannot be loaded together with current TensorFlow.

`rlds.transformations.pattern` imports reverb at the top, but only `pattern_map` and similar functions use it, which are
not used here.
"""

import sys
from types import ModuleType


def import_rlds():
    """The module `rlds`, with a stub of `reverb` if the real one cannot be imported."""
    try:
        import reverb
    except ImportError:
        for name in [n for n in sys.modules if n == "reverb" or n.startswith("reverb.")]:
            del sys.modules[name]  # remains of the failed import
        writer = ModuleType("reverb.structured_writer")
        for name in ("Config", "Pattern", "ReferenceStep", "Condition"):
            setattr(writer, name, type(name, (), {}))
        reverb = ModuleType("reverb")
        reverb.structured_writer = writer
        sys.modules.update({"reverb": reverb, "reverb.structured_writer": writer})
    import rlds

    return rlds
