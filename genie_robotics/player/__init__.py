"""`genie-robotics play RUN`: play a world in the browser.

server.py: HTTP and WebSocket; protocol.py: the messages of the browser; session.py: the world of one browser;
paired_simulator.py: the simulator next to a dream; starts.py: pictures to start from; static/: the page.
"""
