"""What may be wrong with a set of labelled images: found, shown on a page, and left as it is.

    source -> images, features -> probabilities out of fold -> lists -> page, CSV files, audit.json

`subject` opens a data set or a run, `confident` finds probable label errors, `findings` the other
lists, `page` shows them and `cleaned` writes what is left without them. A person decides.
"""

from vitlab.auditing.audit import audit

__all__ = ["audit"]
