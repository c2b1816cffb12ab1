#!/usr/bin/env bash
# The programs of examples/ do what they are there to show. One function each, named for its rule in
# docs/rules.md, group E.
set -euo pipefail
examples=${TRAM_BUILD_DIR:-build/release}/examples

# timeout --foreground: else it passes a signal on twice, and the second may come when the handlers are gone already.
fail() {
    echo "$*"
    exit 1
}

# E-5: the output of date, collected from a subprocess.
subprocess_date() {
    local output
    output=$(LC_ALL=C TZ=UTC timeout 20 "$examples/subprocess-date") || fail "subprocess-date: exit code $?"
    [[ $output =~ ^"Current date: "[A-Z][a-z]+\ .*UTC ]] || fail "subprocess-date printed: $output"
    # An empty PATH has no date: a clear error, and no hanging.
    if output=$(PATH=/nonexistent "$examples/subprocess-date" 2>&1); then fail "subprocess-date: no error without date"; fi
    [[ $output == "date: No such file or directory" ]] || fail "subprocess-date without date printed: $output"
}

# E-8: a server and a client on raw sockets, where "quit" ends.
sock_server_and_client() {
    local line port output status=0
    coproc SERVER { exec timeout --foreground 60 "$examples/sock-server"; }
    local server=$SERVER_PID
    read -r -t 20 line <&"${SERVER[0]}" || fail "sock-server said nothing"
    port=${line##*:}
    output=$(printf 'hello\nworld 1\nquit\nignored\n' | timeout 20 "$examples/sock-client" localhost "$port") ||
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
}

subprocess_date

# E-3: a UDP echo server and a connected client that reads the terminal while it listens.
udp_echo() {
    local line port output server_out status=0
    exec {server_out}< <(exec timeout --foreground 60 "$examples/udp-echo-server")
    local server=$!
    read -r -t 20 line <&"$server_out" || fail "udp-echo-server said nothing"
    port=${line##*:}
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

# E-4: a socket pair, wrapped as a connection and watched.
socket_pair() {
    local output
    output=$(timeout 20 "$examples/socket-pair") || fail "socket-pair: exit code $?"
    [[ $output == $'Received by a protocol: abc\nReceived by a reader: abc' ]] || fail "socket-pair printed: $output"
}

socket_pair

# E-7: the protocols of E-6, unchanged, through memory.
number_pair() {
    local output status=0
    output=$(timeout 20 "$examples/number-pair" 41) || fail "number-pair: exit code $?"
    [[ $output == $'answers: 1, end: clean\n42' ]] || fail "number-pair printed: $output"
    # What has no successor ends the connection: an error for the one end, an end without an answer for the other.
    output=$(timeout 20 "$examples/number-pair" 9223372036854775807 2>&1) || status=$?
    ((status == 1)) || fail "number-pair: exit code $status"
    [[ $output == $'answers: 0, end: Invalid value\nnumber-pair: '* ]] || fail "number-pair printed: $output"
    status=0
    "$examples/number-pair" >/dev/null 2>&1 || status=$?
    ((status == 2)) || fail "number-pair without arguments: exit code $status"
}

number_pair
