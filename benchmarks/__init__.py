"""Benchmarks: seeded workloads, the machine's own bandwidth, and rivals on the same arrays in the same run.

A section is a module with a TITLE, a function `run(plan)` that yields rows, and a function `show(rows)` that returns
Markdown; for the README it may have `brief(rows)` and `in_brief(row)`, too. Rows are dicts of strings and numbers; one
with a "failure" says why something was not measured. To add a section, write its module and put its name into
`SECTIONS` in __main__; to add a rival, write its function in rivals (arrays in memory) or streams (objects that are fed
batches).
"""
