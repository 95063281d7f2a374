"""The arithmetic of batch sizes: noise scale, trade-off, rules, intervals."""
