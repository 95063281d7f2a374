"""One image: decoded, converted, as a tensor."""
