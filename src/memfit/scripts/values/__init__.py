"""Values on a GPU that computes nothing: small operators run for real, what is read is listed."""
