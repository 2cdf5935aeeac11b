"""What the model says: a function of seed, request and occurrence."""
