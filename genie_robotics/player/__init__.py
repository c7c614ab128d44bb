"""The world played live in a browser: `genie-robotics play RUN`.

`server.py` speaks to browsers, `protocol.py` says what they may ask, `session.py` is one player's world, `starts.py`
where it may begin, `static/` the page.
"""
