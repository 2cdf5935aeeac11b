"""A class on one endpoint: everybody's name is a key, everybody gets a fair share."""
