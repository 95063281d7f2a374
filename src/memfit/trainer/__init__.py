"""Train without running out of memory: the step, its recovery, the run."""
