"""A page in which a trained model computes and can be taken apart.

    run, images -> payload -> the built template, with the payload in it

"Explorable" is short for Bret Victor's "explorable explanation" (2011): a reader changes what a
result comes from and sees what becomes of it. `page` makes the page; what it shows is in web/.
"""

from vitlab.explorable.inside import inside

__all__ = ["inside"]
