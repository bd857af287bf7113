"""Whether a published or a recorded figure can be had: train rows of the results page, test them.

rows.py     what is trained for each row, and what its source reports
queue.py    `vitlab reproduce`: which row is begun when, inside a given time, resumed exactly
worker.py   a process in which rows are trained
smoke.py    `vitlab reproduce --smoke`: whether a row works on this device, and how long it takes
"""
