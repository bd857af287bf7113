"""A page in which a trained model computes and can be taken apart.

    run, images -> payload -> the built template, with the payload in it

"Explorable" is short for Bret Victor's "explorable explanation" (2011): the reader does not look at
results, but changes what they come from. The page itself is in web/.
"""
