#!/usr/bin/env bash
# The programs of examples/ do what they are there to show. One function each, named for its rule in
# docs/rules.md, group E.
set -euo pipefail
examples=${TRAM_BUILD_DIR:-build/release}/examples

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

subprocess_date

# E-3: a UDP echo server and a connected client that reads the terminal while it listens.
udp_echo() {
    local line port output server_out status=0
    exec {server_out}< <(exec timeout 60 "$examples/udp-echo-server")
    local server=$!
    read -r -t 20 line <&"$server_out" || fail "udp-echo-server said nothing"
    port=${line##*:}
    coproc UDP_CLIENT { exec timeout 60 "$examples/udp-echo-client" 127.0.0.1 "$port"; }
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
