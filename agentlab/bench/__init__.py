"""A benchmark that others can repeat: an experiment is a file, and so are its results.

experiment   what is measured: workloads x engines x presets x limits x seeds, from YAML
opponents    the rule that everybody begins with: a fixed number of calls in flight
arrivals     when agents arrive: at a rate, at random, in bursts, or as in a published trace
requests     every request: when it was due, asked, sent, served and returned
summary      what callers felt: response times, first tokens, goodput, cost
measure      measures it: warm, interleaved, resumable; and tells beforehand what it costs
results      the raw data, a measurement per run, and what forbids comparing it
report       the Markdown table with the bound beside each figure, and what it says
plots        the same as pictures; limits over time, limiters judged, what a bandit earns
account      where the time went: what a run took beyond its bound, by causes that add up
where        the same as one page of HTML, from the templates in page/
compare      what differs between two results, and what can be told from it
intervals    a ratio that was measured round by round, and the interval that it is in
against      an experiment and the same with one thing changed, measured in turn
fit          a preset from an endpoint's measurements, and how well it predicts others
laws         Amdahl, Gustafson, and the Universal Scalability Law, fitted
closed_loop  agents on an endpoint's physics with no client, a million if need be
trial        limiters in scenarios to tune and to judge them, on the endpoint's physics
self_tuning  what the study of limiters and bandits found, as `tools/tuning.py` stored it
"""
