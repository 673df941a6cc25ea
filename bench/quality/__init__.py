"""Do the intervals of quality cover? Populations made from seeds, labels drawn from them, and what was said of them."""
