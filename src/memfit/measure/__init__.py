"""Real training steps on a real device, measured and held against the plan."""
