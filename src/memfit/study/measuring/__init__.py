"""What a study measures: gradients, noise, speed, memory."""
