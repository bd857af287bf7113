"""Whether a published or a recorded figure can be had: train a row's seeds, judge, keep the record.

rows.py     what is trained for each row of the results page, and what its source reports
queue.py    `vitlab reproduce`: which row is begun when, inside a given time, resumed exactly
worker.py   a process in which rows are trained
smoke.py    `vitlab reproduce --smoke`: whether a row works on this device, and how long it takes
records.py  finished runs -> docs/results and the pages generated from them
tiers.py    the best results that we are after, and how far we are

and, of the models that ship,

shipped.py      measures them again, all that the pages show
comparison.py   docs/compare.md
maps.py         docs/explain.md
layers.py       docs/explore.md
"""
