"""The local model: an OpenAI-compatible endpoint whose time behaves as a real one's.

Files that decide never wait; those that wait (`live`, `gate`, `server/`) decide no time or words.
"""
