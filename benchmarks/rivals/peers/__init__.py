"""One script per system, run in the environment of that system: its job, its client, its worker's settings.

STORE is the URL or the file that the jobs are in. The client obeys `benchmarks.drive`; the job is one mark.
"""
