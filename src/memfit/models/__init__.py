"""Models by name, by file or as objects, built with shapes only: no weights, no memory."""

from memfit.models.built import BuiltModel, InputKind, Task
from memfit.models.checkpointing import enable_gradient_checkpointing
from memfit.models.lookup import build, model_names

__all__ = [
    "BuiltModel",
    "InputKind",
    "Task",
    "build",
    "enable_gradient_checkpointing",
    "model_names",
]
