"""The local model: an OpenAI-compatible endpoint whose time behaves as a real one's.

    presets       the figures of an endpoint, each with its source
    contract/     what goes over the wire: requests, errors, schemas, tokens, records
    physics/      when things happen: prefill, decode, slots, queue
    answers/      what the model says, and which tools it calls
    dialects/     chat completions, responses, embeddings: one conversation, three wordings
    middleware/   around any model: limits, faults, times
    server/       the application, the forwarder, and the process that serves them

Files that decide never wait; those that wait (`live`, `gate`, `server/`) decide
nothing about time or words.
"""
