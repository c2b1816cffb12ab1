#!/usr/bin/env bash
# The programs of examples/ do what they are there to show. One function each, which names its rules
# (docs/rules.md, group E) above.
set -euo pipefail
examples=${TRAM_BUILD_DIR:-build/release}/examples
support=${TRAM_SOURCE_DIR:-$(dirname "$0")/../..}/tests/support

# timeout --foreground: else it passes a signal on twice, and the second may come when the handlers are gone already.
fail() {
    echo "$*"
    exit 1
}

# A port where nobody else is met when the server has gone: own_port [udp].
own_port() { python3 "$support/own_port.py" "$@"; }

# rules: E-5
# The output of date, collected from a subprocess.
subprocess_date() {
    local output
    output=$(LC_ALL=C TZ=UTC timeout 20 "$examples/subprocess-date") || fail "subprocess-date: exit code $?"
    [[ $output =~ ^"Current date: "[A-Z][a-z]+\ .*UTC ]] || fail "subprocess-date printed: $output"
    # An empty PATH has no date: a clear error, and no hanging.
    if output=$(PATH=/nonexistent "$examples/subprocess-date" 2>&1); then fail "subprocess-date: no error without date"; fi
    [[ $output == "date: No such file or directory" ]] || fail "subprocess-date without date printed: $output"
}

# rules: E-8
# A server and a client on raw sockets, where "quit" ends.
sock_server_and_client() {
    local line port output status=0
    port=$(own_port)
    coproc SERVER { exec timeout --foreground 60 "$examples/sock-server" "$port"; }
    local server=$SERVER_PID
    read -r -t 20 line <&"${SERVER[0]}" || fail "sock-server said nothing"
    [[ ${line##*:} == "$port" ]] || fail "sock-server printed: $line"
    output=$(printf 'hello\nworld 1\nquit\nignored\n' | timeout 20 "$examples/sock-client" 127.0.0.1 "$port") ||
        fail "sock-client: exit code $?"
    [[ $output == $'HELLO\nWORLD 1' ]] || fail "sock-client printed: $output"
    # Python's plain sockets and asyncio's sock_ calls, many at once, with the same server.
    timeout 60 python3 - "$port" <<'EOF' || fail "sock-server and Python did not understand each other"
import asyncio, socket, sys

async def talk(port, number):
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        for turn in range(10):
            text = f"client {number} turn {turn}".encode()
            await loop.sock_sendall(sock, text)
            answer = b""
            while len(answer) < len(text):
                answer += await loop.sock_recv(sock, 100)
            assert answer == text.upper(), answer
        await loop.sock_sendall(sock, b"quit")
        assert await loop.sock_recv(sock, 100) == b""

async def main():
    await asyncio.gather(*(talk(int(sys.argv[1]), number) for number in range(50)))

asyncio.run(main())
EOF
    # The other way round: asyncio's sock_ calls serve.
    timeout 60 python3 - "$examples/sock-client" <<'EOF' || fail "sock-client and Python did not understand each other"
import asyncio, socket, sys

async def serve(listener):
    loop = asyncio.get_running_loop()
    sock, _ = await loop.sock_accept(listener)
    with sock:
        heard = []
        while (message := await loop.sock_recv(sock, 100)) and message != b"quit\n":
            heard.append(message)
            await loop.sock_sendall(sock, b"<" + message)
        return heard

async def main():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        serving = asyncio.create_task(serve(listener))
        client = await asyncio.create_subprocess_exec(
            sys.argv[1], "127.0.0.1", str(listener.getsockname()[1]),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        out, _ = await client.communicate(b"one\ntwo\nquit\n")
        assert client.returncode == 0, client.returncode
        assert out == b"<one\n<two\n", out
        assert await serving == [b"one\n", b"two\n"]

asyncio.run(main())
EOF
    kill -TERM "$server"
    wait "$server" || status=$?
    ((status == 0 || status == 124)) || fail "sock-server: exit code $status"
    # Nobody listens any more: a clear error.
    if output=$("$examples/sock-client" 127.0.0.1 "$port" 2>&1 </dev/null); then fail "sock-client: no error"; fi
    [[ $output == "sock-client: connect: Connection refused" ]] || fail "sock-client printed: $output"
    for port in nonsense 65536 -1; do
        if output=$(timeout 20 "$examples/sock-server" "$port" 2>&1); then fail "sock-server: no error for port $port"; fi
        [[ $output == "sock-server: port $port: Invalid value" ]] || fail "sock-server printed: $output"
    done
}

subprocess_date

# Each says what it is for when it is asked.
help_of_each() {
    local program name output
    for program in "$examples"/*; do
        name=${program##*/}
        [[ -f $program && -x $program ]] || continue
        output=$(timeout 20 "$program" --help </dev/null) || fail "$name --help: exit code $?"
        [[ $output == "usage: $name"* && $output == *$'\n'* ]] || fail "$name --help printed: $output"
    done
}

help_of_each

# rules: E-3
# A UDP echo server and a connected client that reads the terminal while it listens.
udp_echo() {
    local line port output server_out status=0
    port=$(own_port udp)
    exec {server_out}< <(exec timeout --foreground 60 "$examples/udp-echo-server" "$port")
    local server=$!
    read -r -t 20 line <&"$server_out" || fail "udp-echo-server said nothing"
    [[ ${line##*:} == "$port" ]] || fail "udp-echo-server printed: $line"
    coproc UDP_CLIENT { exec timeout --foreground 60 "$examples/udp-echo-client" 127.0.0.1 "$port"; }
    local client=$UDP_CLIENT_PID out=${UDP_CLIENT[0]} in=${UDP_CLIENT[1]}
    for text in "hello" "two words" ""; do
        echo "$text" >&"$in"
        read -r -t 20 line <&"$out" || fail "udp-echo-client: no answer to '$text'"
        [[ $line == "$text" ]] || fail "udp-echo-client printed: $line"
    done
    # The server goes: the client is told, and lives on until it is told to end.
    kill -TERM "$server"
    wait "$server" || status=$?
    ((status == 0 || status == 124)) || fail "udp-echo-server: exit code $status"
    echo "anyone?" >&"$in"
    read -r -t 20 line <&"$out" || fail "udp-echo-client: nothing about a server that is gone"
    [[ $line == "error: Connection refused" ]] || fail "udp-echo-client printed: $line"
    echo "q" >&"$in"
    status=0
    wait "$client" || status=$?
    ((status == 0)) || fail "udp-echo-client: exit code $status"
    # An input that cannot be waited for, a port that is none, and one that is taken: clear errors.
    if output=$("$examples/udp-echo-client" 127.0.0.1 "$port" 2>&1 </dev/null); then fail "udp-echo-client: no error"; fi
    [[ $output == "udp-echo-client: Operation not permitted" ]] || fail "udp-echo-client printed: $output"
    if output=$("$examples/udp-echo-client" 127.0.0.1 nonsense 2>&1 </dev/null); then fail "udp-echo-client: no error"; fi
    if output=$("$examples/udp-echo-server" nonsense 2>&1); then fail "udp-echo-server: no error for a bad port"; fi
    [[ $output == udp-echo-server:* ]] || fail "udp-echo-server printed: $output"
}

udp_echo
sock_server_and_client

# rules: E-4
# A socket pair, wrapped as a connection and watched.
socket_pair() {
    local output
    output=$(timeout 20 "$examples/socket-pair") || fail "socket-pair: exit code $?"
    [[ $output == $'Received by a protocol: abc\nReceived by a reader: abc' ]] || fail "socket-pair printed: $output"
}

socket_pair

# rules: E-7
# The protocols of E-6, unchanged, through memory.
number_pair() {
    local output number status=0
    output=$(timeout 20 "$examples/number-pair" 41) || fail "number-pair: exit code $?"
    [[ $output == $'answers: 1, end: clean\n42' ]] || fail "number-pair printed: $output"
    # What has no successor ends the connection: an error for the one end, an end without an answer for the other.
    output=$(timeout 20 "$examples/number-pair" 9223372036854775807 2>&1) || status=$?
    ((status == 1)) || fail "number-pair: exit code $status"
    [[ $output == $'answers: 0, end: Invalid value\nnumber-pair: '* ]] || fail "number-pair printed: $output"
    for number in "" x 1x 9223372036854775808 -; do
        status=0
        output=$("$examples/number-pair" "$number" 2>&1) || status=$?
        ((status == 2)) || fail "number-pair '$number': exit code $status"
        [[ $output == "number-pair: no integer of 64 bits: $number" ]] || fail "number-pair printed: $output"
    done
    status=0
    "$examples/number-pair" >/dev/null 2>&1 || status=$?
    ((status == 2)) || fail "number-pair without arguments: exit code $status"
}

number_pair

# Started and not ended yet: no timeout(1) stands over them, which would pass a signal on twice.
declare -A started=()
trap '((${#started[@]} == 0)) || kill "${!started[@]}"' EXIT

# Starts a server: start NAME [ARGUMENT…]. Sets `server`, and `said` to its first line.
start() {
    local name=$1 out
    shift
    # A shell lets what it starts in the background ignore SIGINT.
    exec {out}< <(exec env --default-signal=INT "$examples/$name" "$@")
    server=$!
    started[$server]=1
    read -r -t 20 said <&"$out" || fail "$name said nothing"
    server_out=$out
}

# Ends it, by a signal: stop NAME SIGNAL. What it printed at last is read from `server_rest`.
stop() {
    local status=0
    kill "-$2" "$server"
    wait "$server" || status=$?
    unset "started[$server]"
    ((status == 0)) || fail "$1: exit code $status after $2"
    exec {server_rest}<&"$server_out" {server_out}<&-
}

# rules: E-1
# A server that answers and closes; a client that sends when connected and ends when the connection does.
echo_once() {
    local port output i
    port=$(own_port)
    start echo-server-once "$port"
    [[ $said == "listening on 127.0.0.1:$port" ]] || fail "echo-server-once printed: $said"
    for i in 1 2 3; do
        output=$(timeout 20 "$examples/echo-client" 127.0.0.1 "$port" "hello $i") || fail "echo-client: exit code $?"
        [[ $output == "sending: hello $i"$'\n'"received: hello $i"$'\n'"the server closed the connection" ]] ||
            fail "echo-client printed: $output"
    done
    # The port is taken; later nobody is there.
    if output=$("$examples/echo-server-once" "$port" 2>&1); then fail "echo-server-once: two on one port"; fi
    [[ $output == "echo-server-once: bind 127.0.0.1:$port: Address already in use" ]] ||
        fail "echo-server-once printed: $output"
    stop echo-server-once INT
    if output=$("$examples/echo-client" 127.0.0.1 "$port" 2>&1); then fail "echo-client: no error"; fi
    [[ $output == "echo-client: connect 127.0.0.1:$port: Connection refused" ]] || fail "echo-client printed: $output"
}

# rules: E-2
# A server that keeps its connections, with a client on the console.
echo_console() {
    local port line text output status=0
    port=$(own_port)
    start echo-server "$port"
    [[ ${said##*:} == "$port" ]] || fail "echo-server printed: $said"
    coproc CONSOLE { exec timeout --foreground 60 "$examples/echo-console" 127.0.0.1 "$port"; }
    local client=$CONSOLE_PID out=${CONSOLE[0]} in=${CONSOLE[1]}
    for text in "hello" "two words" "" "quit, not q"; do
        echo "$text" >&"$in"
        read -r -t 20 line <&"$out" || fail "echo-console: no answer to '$text'"
        [[ $line == "$text" ]] || fail "echo-console printed: $line"
    done
    # Another one meanwhile, of which only the input ends.
    printf 'one\ntwo\n' | timeout 20 "$examples/echo-console" 127.0.0.1 "$port" >/dev/null || fail "exit code $?"
    echo "q" >&"$in"
    wait "$client" || status=$?
    ((status == 0)) || fail "echo-console: exit code $status"
    # The server goes first: the client ends though its terminal is open.
    coproc CONSOLE { exec timeout --foreground 60 "$examples/echo-console" 127.0.0.1 "$port"; }
    client=$CONSOLE_PID out=${CONSOLE[0]} in=${CONSOLE[1]}
    echo "there?" >&"$in"
    read -r -t 20 line <&"$out" || fail "echo-console: no answer"
    stop echo-server TERM
    wait "$client" || status=$?
    ((status == 0)) || fail "echo-console after the end of the server: exit code $status"
    # Nobody there, and an input that cannot be waited for.
    if output=$("$examples/echo-console" 127.0.0.1 "$port" 2>&1 </dev/null); then fail "echo-console: no error"; fi
    [[ $output == "echo-console: Connection refused" ]] || fail "echo-console printed: $output"
}

# rules: E-6
# Integers, one a line, over an abstract Unix socket.
numbers() {
    local name="tram-numbers-$$" output number line
    start number-server "$name"
    [[ $said == "listening on @$name" ]] || fail "number-server printed: $said"
    for number in 0 41 -1 9223372036854775806; do
        output=$(timeout 20 "$examples/number-client" "$number" "$name") || fail "number-client: exit code $?"
        [[ $output == "$((number + 1))" ]] || fail "number-client printed: $output"
        read -r -t 20 line <&"$server_out" || fail "number-server did not see the end"
        [[ $line == "answers: 1, end: clean" ]] || fail "number-server printed: $line"
    done
    # Many lines at once, pieces of a line, and what is no number, which ends that connection alone.
    timeout 60 python3 - "$name" <<'EOF' || fail "number-server and Python did not understand each other"
import socket, sys

def connect():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect("\0" + sys.argv[1])
    return sock

with connect() as sock:
    sock.sendall("".join(f"{n}\n" for n in range(5000)).encode())
    sock.shutdown(socket.SHUT_WR)
    answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert [int(line) for line in answer.split()] == list(range(1, 5001))
for piece in b"\n", b"12x\n", b"1 2\n", b"9223372036854775807\n", b"9223372036854775808\n", b"1" * 24:
    with connect() as bad, connect() as good:
        bad.sendall(piece)
        assert bad.recv(100) == b"", piece
        for byte in b"67\n":
            good.sendall(bytes([byte]))
        assert good.recv(100) == b"68\n"
EOF
    stop number-server TERM
    if output=$("$examples/number-client" 1 "$name" 2>&1); then fail "number-client: no error"; fi
    [[ $output == "number-client: Connection refused" ]] || fail "number-client printed: $output"
    for number in "" abc "12 monkeys" 99999999999999999999; do
        if output=$("$examples/number-client" "$number" "$name" 2>&1); then fail "number-client '$number': no error"; fi
        [[ $output == "number-client: no integer of 64 bits: $number" ]] || fail "number-client printed: $output"
    done
}

# rules: E-10
# A server that is bound, serves later, and until it is told to end.
serve_forever() {
    local port line greeting status=0
    coproc SERVE { exec "$examples/serve-forever"; }
    local server=$SERVE_PID out=${SERVE[0]} in=${SERVE[1]}
    started[$server]=1
    read -r -t 20 line <&"$out" || fail "serve-forever said nothing"
    port=${line##*:}
    read -r -t 20 line <&"$out" && [[ $line == "serving: no" ]] || fail "serve-forever printed: $line"
    # Bound, yet it does not listen.
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then fail "serve-forever listens before it serves"; fi
    echo >&"$in"
    read -r -t 20 line <&"$out" && [[ $line == "serving: yes" ]] || fail "serve-forever printed: $line"
    exec {greeting}<>"/dev/tcp/127.0.0.1/$port" || fail "serve-forever does not listen"
    read -r -t 20 line <&"$greeting" && [[ $line == "ready" ]] || fail "serve-forever answered: $line"
    exec {greeting}<&-
    # What it prints at its end must be read by then: bash forgets a coprocess that ended.
    exec {out}<&"$out"
    kill -INT "$server"
    read -r -t 20 line <&"$out" && [[ $line == "serving: no" ]] || fail "serve-forever printed: $line"
    wait "$server" || status=$?
    unset "started[$server]"
    ((status == 0)) || fail "serve-forever: exit code $status"
    exec {out}<&-
}

# rules: E-9
# The same with streams: a handler for each connection, a task each for the terminal and what comes.
streams_echo() {
    local port text line output status=0
    port=$(own_port)
    start streams-echo-server "$port"
    [[ $said == "listening on 127.0.0.1:$port" ]] || fail "streams-echo-server printed: $said"
    coproc TYPED { exec timeout --foreground 60 "$examples/streams-echo-client" 127.0.0.1 "$port"; }
    local client=$TYPED_PID out=${TYPED[0]} in=${TYPED[1]}
    for text in "hello" "two words" "" "quit, not q"; do
        echo "$text" >&"$in"
        read -r -t 20 line <&"$out" || fail "streams-echo-client: no answer to '$text'"
        [[ $line == "$text" ]] || fail "streams-echo-client printed: $line"
    done
    # Another one meanwhile; its input ends, and it waits for all answers.
    output=$(seq 20000 | timeout 20 "$examples/streams-echo-client" 127.0.0.1 "$port") || fail "exit code $?"
    [[ $output == "$(seq 20000)" ]] || fail "streams-echo-client lost answers"
    # Which port it is, a scanner finds out.
    output=$(timeout 60 "$examples/port-scanner" 127.0.0.1 "$((port - 40))" "$((port + 10))") || fail "exit code $?"
    grep -qx "$port" <<<"$output" || fail "port-scanner did not find $port: $output"
    echo "q" >&"$in"
    wait "$client" || status=$?
    ((status == 0)) || fail "streams-echo-client: exit code $status"
    # The server goes first: the client ends though its terminal is open.
    coproc TYPED { exec timeout --foreground 60 "$examples/streams-echo-client" 127.0.0.1 "$port"; }
    client=$TYPED_PID out=${TYPED[0]} in=${TYPED[1]}
    echo "there?" >&"$in"
    read -r -t 20 line <&"$out" || fail "streams-echo-client: no answer"
    stop streams-echo-server INT
    wait "$client" || status=$?
    ((status == 0)) || fail "streams-echo-client after the end of the server: exit code $status"
    # Nobody there.
    output=$(timeout 20 "$examples/port-scanner" 127.0.0.1 "$port" "$port") || fail "port-scanner: exit code $?"
    [[ -z $output ]] || fail "port-scanner found what is closed: $output"
    if output=$("$examples/streams-echo-client" 127.0.0.1 "$port" 2>&1 </dev/null); then fail "no error"; fi
    [[ $output == "streams-echo-client: Connection refused" ]] || fail "streams-echo-client printed: $output"
    if output=$("$examples/port-scanner" 127.0.0.1 0 1 2>&1); then fail "port-scanner: no error for port 0"; fi
}

# Three are served at a time; who comes fourth waits in the queue.
connection_queue() {
    start connection-queue
    timeout 60 python3 - "${said##*:}" <<'EOF' || fail "connection-queue serves wrong"
import socket, sys

def connect():
    return socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)

slow, fourth = [connect() for _ in range(3)], connect()
fourth.sendall(b"fourth\n")
fourth.settimeout(0.2)
try:
    sys.exit(f"the fourth was served at once: {fourth.recv(100)}")
except TimeoutError:
    pass
slow[1].sendall(b"second\n")
assert slow[1].makefile().readline() == "second\n"
fourth.settimeout(20)
assert fourth.makefile().readline() == "fourth\n"
for sock in slow:
    sock.close()
EOF
    stop connection-queue INT
}

# Redirects are followed, and no more than four connect at once.
http_client() {
    timeout 60 python3 - "$examples/http-client" <<'EOF' || fail "http-client fetches wrong"
import http.server, subprocess, sys, threading

together = threading.Barrier(4) # 20 pages come in fours: neither fewer at once nor more
lock, present, most = threading.Lock(), 0, 0

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global present, most
        if self.path.startswith("/page"):
            with lock:
                present += 1
                most = max(most, present)
            together.wait(20)
            with lock:
                present -= 1
        target = {"/start": "/hop", "/hop": f"http://127.0.0.1:{port}/end", "/loop": "/loop"}.get(self.path)
        body = b"" if target else self.path.encode() * 1000
        self.send_response(302 if target else 404 if self.path == "/none" else 200)
        if target:
            self.send_header("location", target)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 50

server = Server(("127.0.0.1", 0), Handler)
port = server.server_address[1]
threading.Thread(target=server.serve_forever, daemon=True).start()

def fetch(*paths):
    urls = [path if ":" in path else f"http://127.0.0.1:{port}{path}" for path in paths]
    lines = subprocess.run([sys.argv[1], *urls], check=True, capture_output=True, text=True).stdout.splitlines()
    answers = dict(line.split(": ", 1) for line in lines)
    assert len(lines) == len(urls), lines
    return [answers[url] for url in urls]

answers = fetch("/start", "/none", "/loop", "ftp://x")
assert answers == ["200, 4000 bytes", "404, 5000 bytes", "Limit exceeded", "Invalid value"], answers
assert fetch(*(f"/page{number:02}" for number in range(20))) == ["200, 7000 bytes"] * 20
assert most == 4, most
EOF
}

# Counters of each worker, and their sum.
worker_state() {
    local port lines
    port=$(own_port)
    start worker-state "$port"
    [[ $said == "listening on 127.0.0.1:$port" ]] || fail "worker-state printed: $said"
    timeout 60 python3 - "$port" <<'EOF' || fail "worker-state counts wrong"
import socket, sys

clients = [socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20).makefile("rw") for _ in range(20)]

def ask(client, line):
    client.write(line + "\n")
    client.flush()
    return int(client.readline())

counts = [ask(client, "total, not") for _ in range(3) for client in clients]
# Each worker has counted its own from 1 on, without a gap.
workers = counts.count(1)
assert workers > 0
for number in set(counts):
    assert number == 1 or counts.count(number - 1) >= counts.count(number), counts
assert ask(clients[0], "total") == 61
EOF
    stop worker-state TERM
    lines=$(awk '{ sum += $3 } END { print sum }' <&"$server_rest")
    [[ $lines == 61 ]] || fail "worker-state printed $lines lines in all"
}

# Primes on a pool: in order, while clients come and go.
executor() {
    local port
    port=$(own_port)
    start executor "$port" 2>/dev/null # bad lines are reported
    timeout 100 python3 - "$port" <<'EOF' || fail "executor answers wrong"
import socket, sys

def connect():
    return socket.create_connection(("127.0.0.1", int(sys.argv[1])), 60)

known = {0: 0, 1: 0, 2: 1, 100: 25, 10: 4, 1000000: 78498, 3: 2}
with connect() as sock:
    sock.sendall("".join(f"{n}\n" for n in known).encode() * 5)
    sock.shutdown(socket.SHUT_WR)
    answers = b"".join(iter(lambda: sock.recv(65536), b"")).split()
    assert [int(answer) for answer in answers] == list(known.values()) * 5, answers
for sock in [connect() for _ in range(20)]:
    sock.sendall(b"2000000\n")
    sock.close()
with connect() as sock:
    sock.sendall(b"1")
    sock.sendall(b"0\n")
    assert sock.recv(100) == b"4\n"
for bad in b"x\n", b"\n", b"10000001\n", b"-1\n", b"123456789":
    with connect() as sock:
        sock.sendall(bad)
        try:
            assert sock.recv(100) == b"", bad
        except ConnectionResetError:
            pass
EOF
    stop executor INT
}

# What a server allows: number, first byte, idleness, age, and what nobody reads.
limits() {
    local port line
    port=$(own_port)
    start limits "$port"
    timeout 60 python3 - "$port" <<'EOF' || fail "limits allows too much or too little"
import socket, sys

def connect():
    return socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)

def ends(sock):
    try:
        return sock.recv(100) == b""
    except ConnectionResetError:
        return True

def sends_until_the_end(sock, reads):
    try:
        while True:
            # Who reads never has so much on the way that it could be too much, however little the kernel takes at once.
            sock.sendall(bytes(4096 if reads else 65536))
            if reads and not sock.recv(4096, socket.MSG_WAITALL):
                return
    except (ConnectionResetError, BrokenPipeError):
        pass

one, two = connect(), connect()
for sock in one, two:
    sock.sendall(b"x")
    assert sock.recv(10) == b"x"
try:
    assert ends(connect()), "a third connection"
except ConnectionResetError: # as early as this
    pass
for sock in one, two:
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(10) == b""
silent, idle = connect(), connect()
idle.sendall(b"x")
assert idle.recv(10) == b"x"
assert ends(silent) and ends(idle)
sends_until_the_end(connect(), False)
sends_until_the_end(connect(), True)
EOF
    stop limits TERM
    for line in "lost: a clean end" "lost: a clean end" "lost: first byte: Connection timed out" "lost: idle: Connection timed out" \
        "lost: write: " "lost: total: Connection timed out" "refused 1, first byte 1, idle 1, total 1, unread 1"; do
        read -r -t 20 said <&"$server_rest" && [[ $said == "$line"* ]] || fail "limits printed: $said, not: $line"
    done
}

# tram's loops in the epoll loop of a host.
embedding() {
    local port line output client
    port=$(own_port)
    coproc HOST { exec timeout --foreground 60 "$examples/embed-epoll" "$port"; }
    local host=$HOST_PID out=${HOST[0]} in=${HOST[1]}
    read -r -t 20 line <&"$out" && [[ $line == "listening on 127.0.0.1:$port" ]] || fail "embed-epoll printed: $line"
    exec {client}<>"/dev/tcp/127.0.0.1/$port"
    echo hello >&"$client"
    read -r -t 20 line <&"$client" && [[ $line == "hello" ]] || fail "embed-epoll answered: $line"
    echo count >&"$in"
    read -r -t 20 line <&"$out" && [[ $line == "1 connections" ]] || fail "embed-epoll printed: $line"
    echo q >&"$in"
    wait "$host" || fail "embed-epoll: exit code $?"
    exec {client}<&-
    if [[ -x $examples/embed-epoll-cpp ]]; then
        output=$(timeout 20 "$examples/embed-epoll-cpp" "two loops") || fail "embed-epoll-cpp: exit code $?"
        [[ $output == "two loops" ]] || fail "embed-epoll-cpp printed: $output"
    fi
}

# Names over UDP, of all workers; what is malformed gets an error or nothing.
dns_responder() {
    local port status=0
    port=$(own_port udp)
    start dns-responder "$port" www.example=192.0.2.1 Mixed.Case=192.0.2.2
    [[ $said == "listening on 127.0.0.1:$port" ]] || fail "dns-responder printed: $said"
    timeout 60 python3 - "$port" <<'EOF' || fail "dns-responder answers wrong"
import random, socket, struct, sys

PORT = int(sys.argv[1])

def query(name, kind=1, number=7, flags=0x0100, count=1):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    return struct.pack(">6H", number, flags, count, 0, 0, 0) + labels + struct.pack(">2H", kind, 1)

def ask(sock, question):
    sock.send(question)
    reply = sock.recv(600)
    number, flags, questions, answers, *_ = struct.unpack(">6H", reply[:12])
    assert number == struct.unpack(">H", question[:2])[0] and flags & 0x8400 == 0x8400, reply
    return flags & 15, answers, reply

def connect():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", PORT))
    return sock

for number in range(50): # of many sources, so by all workers
    with connect() as sock:
        code, answers, reply = ask(sock, query("WWW.example", number=number))
        assert (code, answers) == (0, 1) and reply[-4:] == bytes([192, 0, 2, 1]), reply
sock = connect()
assert ask(sock, query("mixed.case"))[2][-4:] == bytes([192, 0, 2, 2])
assert ask(sock, query("www.example", kind=28))[:2] == (0, 0)
assert ask(sock, query("no.where"))[:2] == (3, 0)
assert ask(sock, query("www.example", count=2))[:2] == (1, 0)
assert ask(sock, query("www.example")[:-1])[:2] == (1, 0)
assert ask(sock, query("www.example")[:12] + b"\xc0\x0c\0\1\0\1")[:2] == (1, 0)
random.seed(1)
for _ in range(2000): # whatever it is, the responder lives on
    noise = bytearray(query("www.example"))
    for _ in range(random.randrange(1, 4)):
        noise[random.randrange(len(noise))] = random.randrange(256)
    sock.send(noise[: random.randrange(1, len(noise) + 1)])
with connect() as sock: # the kernel drops what comes while the queue is full of noise
    sock.settimeout(1)
    for left in reversed(range(20)):
        try:
            assert ask(sock, query("www.example"))[:2] == (0, 1)
            break
        except TimeoutError:
            assert left
EOF
    stop dns-responder TERM
    "$examples/dns-responder" 0 nonsense 2>/dev/null || status=$?
    ((status == 2)) || fail "dns-responder: exit code $status for nonsense"
}

# One process takes over from another, and from what systemd does; no client is refused.
restart() {
    local port first second folder
    port=$(own_port)
    folder=$(mktemp -d)
    start restart "$folder/socket" "$port"
    first=$server
    [[ $said == "$first serves" ]] || fail "restart printed: $said"
    coproc ASKING { exec timeout 60 python3 - "$port" <<'EOF'
import socket, sys

def ask():
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20) as sock:
        sock.sendall(b"who?\n")
        return sock.recv(100).decode().strip()

first = ask()
print(first, flush=True)
while (now := ask()) in (first, ""):  # "": it was idle still when its end came, so it asks again
    pass
print(now)
EOF
    }
    local asking=$ASKING_PID out=${ASKING[0]}
    read -r -t 20 said <&"$out" && [[ $said == "$first" ]] || fail "restart answered: $said"
    start restart "$folder/socket"
    second=$server
    [[ $said == "$second serves what it was given" ]] || fail "restart printed: $said"
    read -r -t 20 said <&"$out" && [[ $said == "$second" ]] || fail "restart answered: $said, not $second"
    wait "$asking" || fail "a client was refused"
    wait "$first" || fail "restart: exit code $? after the hand-over"
    unset "started[$first]"
    stop restart TERM
    timeout 60 python3 - "$examples/restart" "$folder/other" <<'EOF' || fail "restart does not serve what systemd passes"
import os, signal, socket, subprocess, sys

listener = socket.create_server(("127.0.0.1", 0))
os.dup2(listener.fileno(), 3)
server = subprocess.Popen(["bash", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "bash", *sys.argv[1:]],
                          pass_fds=[3], stdout=subprocess.PIPE)
assert b"what it was given" in server.stdout.readline()
with socket.create_connection(listener.getsockname(), 20) as sock:
    sock.sendall(b"who?\n")
    assert int(sock.recv(100)) == server.pid
server.send_signal(signal.SIGTERM)
assert server.wait(20) == 0
EOF
    rm -rf "$folder"
}

echo_once
echo_console
numbers
streams_echo
connection_queue
http_client
serve_forever
worker_state
executor
limits
embedding
dns_responder
restart
