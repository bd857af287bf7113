"""A study: many runs that answer one question, planned before the first of them starts.

definition -> plan (study.json) -> trials, each a process and a run -> summary
"""
