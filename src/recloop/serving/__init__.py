"""`recloop serve`: what a run leaves, behind HTTP, and a page to look at it.

`app` holds the routes, `guard` what happens before and after each (token, limits, ids, logs, metrics), `model` what is
read of a finished run, `ranking` one request's way through it, `batching` and `work_queue` what makes requests wait,
`progress_view` what a run shows while it goes, `server` the process.
"""
