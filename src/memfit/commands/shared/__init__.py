"""What commands share: the flags of a recipe, the card that is meant, where results go."""
