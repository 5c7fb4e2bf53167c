"""A web service whose requests leave the work to background workers: it renders pictures of the Mandelbrot set.

    python -m examples.web_jobs                                            http://127.0.0.1:8000, until Ctrl-C
    python -m examples.web_jobs --port 8000 --database jobs.sqlite --workers 2

The problem
-----------
A picture takes seconds, a request should take milliseconds. So a request puts the work into a queue and is answered at
once. From then on somebody has to know how far the work is, what has failed, whether the user still wants it, and what
of it survives when the server is restarted in the middle.

What it shows
-------------
- *The data source is all the state that there is.* A job is a batch of tasks, a tile of the picture each, and one that
  comes after them and assembles the picture (`gather`). What the page shows is read from the tasks' records; the server
  remembers nothing, so it forgets nothing.
- *Durable.* With `SQLiteQueue` the answer to "start" is given when the tasks are in the file. Stop the server in the
  middle (Ctrl-C lets the tiles that are being rendered end; `kill -9` does not), start it again: the job goes on, and
  so does the page, by itself.
- *Progress* is what a task says of itself, `current_task().set_progress(...)`; the page hears of it by server-sent
  events.
- *Failure.* As long as the page's box says so, every third tile raises. Each is tried again once, by itself; then it
  is a dead letter, and the picture is not assembled. Untick, press "Retry": what failed is queued again, nothing else.
- *Cancelling* takes back what has not begun; a tile that is being rendered notices between two rows.
- *The event loop never waits.* Everything that reads or writes the file is done in a thread (`asyncio.to_thread`).

What is where
-------------
`picture` computes, and knows nothing of tasks; `jobs` has the tasks, and what can be done with a job; `service` says
that in HTTP; `page.html`, `page.css` and `page.js` show it. All this needs starlette and uvicorn:
`pip install "hive-task[web]"`.

The server listens at 127.0.0.1 only, and answers only those who call it by that name or localhost; what changes
something must be said in JSON. So pages of other sites, in the same browser, can't do it.
"""
