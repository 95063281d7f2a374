"""What batch size changes: speed, memory, gradient noise, accuracy; measured."""
