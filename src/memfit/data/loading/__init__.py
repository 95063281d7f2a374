"""From a set to batches: order, augmentation, workers."""
