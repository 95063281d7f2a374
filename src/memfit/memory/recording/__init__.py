"""From a running step to a tape: the virtual GPU and the CPU under a budget."""
