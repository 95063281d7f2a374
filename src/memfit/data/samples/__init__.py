"""What every source of images becomes: splits of samples with their answers."""
