"""genie_eval: how consistent are the latent actions?

`evaluate(genie, source, out)` runs the whole suite and writes the report; the protocol is in eval/README.md.
"""

from importlib import import_module

_HOME = {"evaluate": "evaluation", "EvaluationConfig": "evaluation"}
__all__ = ["EvaluationConfig", "evaluate"]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'genie_eval' has no attribute '{name}'")
    return getattr(import_module(f"genie_eval.{_HOME[name]}"), name)
