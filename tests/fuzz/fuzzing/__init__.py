"""A mutation fuzzer: damaged inputs of every kind that the command reads, run in this process.

`cases.case(seed, number)` makes an input, `judge.judged` runs it and says what is wrong with the
answer. Input NUMBER of SEED is always the same, whatever was run before it.
"""
