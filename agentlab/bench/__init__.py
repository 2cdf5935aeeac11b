"""A benchmark that others can repeat: an experiment is a file, its results are one, too.

    experiment   what is measured: workloads x engines x presets x limits x seeds, from YAML
    strategy     how a case asks where the endpoint refuses: once, insist, retry, pace
    opponents    other rules for how many calls are in flight: fixed, Netflix's three
    cost         what it would take of a real model's requests, tokens and money
    measure      measures it: warm, interleaved, set-up outside of the timer; resumable
    agreement    whether runs of a real model, which words each answer anew, did equal work
    results      the raw data: one measurement a line of the table to come; what is unequal
    reading      what they say: curves, how far each goes, and what ends it
    report       the Markdown table: median, spread, the bound beside each figure
    plots        the same as pictures
    compare      what changed between two results, and whether it is more than noise
    laws         Amdahl, Gustafson, and the Universal Scalability Law, fitted
    tuning       what tunes itself, against what only hindsight knows: an experiment of its own kind
    crowd        a million agents on an endpoint's physics, with no client

From the command line: `agentlab bench`.
"""
