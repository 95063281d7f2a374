"""GPUs: the catalogue, and what a driver says of those that are here."""
