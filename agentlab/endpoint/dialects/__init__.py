"""One conversation in the words of OpenAI's routes."""
