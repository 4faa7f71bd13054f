"""Windlass and other systems side by side, in one run on the same servers: python -m benchmarks.rivals --store STORE.

Each system is measured by the same means (`benchmarks.drive`, `benchmarks.measure`), with no-op jobs, in two worker
processes at the settings that were found best for it or that its manual advises (`benchmarks.rivals.systems`). Run k of
every system comes before run k + 1 of any, on an emptied server, in turns forwards and backwards. The table has medians
and ranges, and each median as a multiple of that of Windlass. What cannot be installed here is named, not guessed.
"""
