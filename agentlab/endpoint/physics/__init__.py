"""When things happen: pure arithmetic in whole nanoseconds, and one file that waits.

formulas   prefill, the step of an engine, jitter
batch      slots, memory, queue, prompts in turn and the shared decode: what happens when
prefixes   the beginnings of prompts that are in memory already
live       a batch on an event loop's clock
"""
