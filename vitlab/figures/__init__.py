"""Numbers become pictures, all in one style and nothing but what was handed in.

Each function writes three files side by side: PATH.png, PATH.svg, and PATH.csv with the
numbers that it draws. Equal numbers give equal bytes. One file per subject; style.py holds
what they share.
"""
