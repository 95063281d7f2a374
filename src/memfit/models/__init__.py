"""Models by name, by file or as objects, built with shapes only: no weights, no memory."""

from memfit.models.built import BuiltModel, InputKind, Task
from memfit.models.checkpointing import enable_gradient_checkpointing
from memfit.models.lookup import build, build_for_training, model_names

__all__ = [
    "BuiltModel",
    "InputKind",
    "Task",
    "build",
    "build_for_training",
    "enable_gradient_checkpointing",
    "model_names",
]
