"""A web page and a JSON API over one model, safe to leave running.

    a picture's bytes -> decoded by a worker with limits -> a batch with others -> an answer

`server` listens and stops, `guard` and `intake` refuse what does not belong here, `service` holds
the model and what is asked of it, `workers` are processes that may be killed, `app` is the API and
the page. Pictures are answered and forgotten; nothing is written and nothing is logged about them.
"""
