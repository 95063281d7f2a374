"""What a plan's figures rest on, each with a name so that it can be said in any language."""

from __future__ import annotations

from dataclasses import dataclass, field

from memfit.recipe.fields import FIELDS
from memfit.step.job import Job

__all__ = ["Assumption", "defaults_of"]

_SENTENCES = {
    "no_card": "No card: kernels and CUDA context are those of {card}.",
    "context": "CUDA context of {context} ({source}); nothing else runs on the card.",
    "shared_memory": "The memory is the system's, too: what Linux and other programs hold of it "
    "comes on top (--free says how much is left).",
    "defaults": "Assumed, as nothing else was said: {defaults}.",
    "second_step": "The second training step: the first has no optimizer state yet.",
    "on_meta": "On meta tensors, because PyTorch itself cannot run here without a GPU: {because}.",
    "second_pass": "The second forward pass: the loop still holds what the first returned.",
    "validation": "After the steps a validation pass without gradients, its batch: {batch}; "
    "gradients and optimizer state stay.",
    "whole_run": "The whole run of the script: its first steps, evaluation, and what lies between.",
    "benchmark_off": "cudnn.benchmark, which the script turns on, is off in the figures: it takes "
    "larger workspaces only where there is room.",
    "cudnn_heuristics": "cuDNN picks algorithms by its heuristics (cudnn.benchmark is off).",
    "full_sequences": "Sequences of full length: no padding, none packed into one row.",
    "usual_loss": "Assumed, as no loss was said: {loss}; it compares with {target}.",
    "said_loss": "The loss is {loss}; it compares with {target}.",
    "models_loss": "The loss is the one that the model returns.",
    "own_loss": "The loss is your own; its target is taken to be {target} (or say --target).",
    "own_step": "The step is your own; its target is taken to be {target} (or say --target).",
    "unused_outputs": "The loss does not use these outputs of the model: {outputs}.",
    "checkpointed": "{blocks} blocks are recomputed in backward.",
    "arithmetic": "Traced at batches {small} and {large}; others are arithmetic, 1 is traced.",
    "arithmetic_runs": "Run at batches {small} and {large}; others are arithmetic.",
    "squares": "Some sizes grow with the square of the batch; two more traces showed how.",
    "direct": "Every batch is traced directly: {because}.",
    "without_compile": "torch.compile: the figures are of the model as it is; compiled code fuses "
    "operators and keeps other tensors.",
    "without_benchmark": "cudnn.benchmark: its trials take larger workspaces where there is room; "
    "memfit run shows PyTorch's own.",
    "without_data_parallel": "DataParallel: the figures are of one GPU with the whole micro-batch; "
    "it splits the batch, and gathers the outputs on the first GPU.",
    "without_apex": "apex.amp: its casts and its float32 copies of the weights; PyTorch's own "
    "mixed precision is --precision amp-fp16.",
    "without_ddp": "DistributedDataParallel: its buckets, about as large as the gradients, are not "
    "in the figures.",
    "without_deterministic": "Deterministic algorithms: some need more memory than those planned.",
    "no_temporaries": "Taken to need nothing beside their outputs: {operators}.",
}


@dataclass(frozen=True, slots=True)
class Assumption:
    """One thing an estimate takes for granted.

    Args:
        key: its name.
        values: what its sentence speaks of.
    """

    key: str
    values: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The sentence in English."""
        return _SENTENCES[self.key].format(**self.values)


def defaults_of(job: Job) -> list[str]:
    """What decides memory and neither a model's code nor its user said."""
    recipe = job.recipe
    has_optimizer = recipe.mode == "train" and not isinstance(job.own.step, type)
    names = ("optimizer", "precision") if has_optimizer else ("precision",)
    own = job.own.given()
    found = [
        f"{name} {getattr(recipe, name)}"
        for name in names
        if name not in own and getattr(recipe, name) == FIELDS[name].default
    ]
    return [*found, "the largest batch"] if job.asked.batch_size is None else found
