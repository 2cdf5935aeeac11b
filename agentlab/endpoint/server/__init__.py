"""The application around a model, and what serves it."""
