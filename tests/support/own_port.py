#!/usr/bin/env python3
"""Print a port that is free, for a server that a script starts: own_port.py [tcp|udp [COUNT]], COUNT up to 8.

It is one that the kernel gives to nobody who does not ask for it (Linux chooses from 32768 on), so that it stays free
while the server starts, and nobody else is met there when the server has gone.
"""

import os
import socket
import sys

KIND = socket.SOCK_DGRAM if sys.argv[1:2] == ["udp"] else socket.SOCK_STREAM

wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 1
for place in range(1000):
    port = 12000 + (os.getpid() * 8 + place) % 20000
    with socket.socket(socket.AF_INET, KIND) as sock:
        if KIND == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", port))
        except OSError:
            continue
    print(port)
    wanted -= 1
    if wanted == 0:
        sys.exit(0)
sys.exit("no port is free")
