#!/usr/bin/env bash
# tram-check: release-only
# The README's server builds against the installed package, by pkg-config and by CMake, with the shared
# and with the static library, and echoes. The server takes its port as its argument. All of examples/ build out of the
# tree, as C11 and as C++17, and so does a program in the names from before docs/renames.txt, once that is applied.
set -euo pipefail
source_dir=${TRAM_SOURCE_DIR:?} build_dir=${TRAM_BUILD_DIR:?} cc=${CC:-cc}

if [ ! -e "$source_dir/README.md" ]; then
    echo "no README.md yet"
    exit 77
fi

work=$(mktemp -d)
server_pid=
cleanup() {
    if [ -n "$server_pid" ]; then kill "$server_pid" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap cleanup EXIT

cmake --install "$build_dir" --prefix "$work/prefix" >"$work/install.log"
# The package must work wherever it is moved to; a path of the old place would show.
mv "$work/prefix" "$work/moved"
prefix=$work/moved
library_dir=$(dirname "$(find "$prefix" -name libtram.so)")
export PKG_CONFIG_PATH=$library_dir/pkgconfig
if [ ! -e "$prefix/include/tram/tram.h" ]; then
    echo "tram/tram.h is not installed"
    exit 1
fi

# The first C block after the marker.
awk '/<!-- readme-server -->/ { marked = 1 }
     marked && inside && /^```/ { exit }
     inside { print }
     marked && /^```c( |$)/ { inside = 1 }' "$source_dir/README.md" >"$work/server.c"
if [ ! -s "$work/server.c" ]; then
    echo 'README.md has no ```c block after <!-- readme-server -->'
    exit 1
fi

# echoes NAME PROGRAM: starts it on a free port and sends what must come back.
echoes() {
    local name=$1 program=$2 port
    port=$(python3 "$source_dir/tests/support/own_port.py")
    LD_LIBRARY_PATH=$library_dir "$program" "$port" &
    server_pid=$!
    python3 - "$port" <<'PYTHON'
import socket, sys, time
end = time.monotonic() + 20
while True: # until it listens
    try:
        connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
        break
    except ConnectionRefusedError:
        if time.monotonic() > end:
            sys.exit("the server does not listen")
        time.sleep(0.02)
sent = bytes(range(256)) * 512
connection.sendall(sent)
connection.shutdown(socket.SHUT_WR)
received = b""
while piece := connection.recv(65536):
    received += piece
if received != sent:
    sys.exit(f"sent {len(sent)} bytes, {len(received)} came back")
PYTHON
    kill "$server_pid"
    wait "$server_pid" 2>/dev/null || true
    server_pid=
    echo "$name: ok"
}

version=$(sed -n 's/^#define TRAM_VERSION_STRING *"\(.*\)"/\1/p' "$source_dir/include/tram/version.h")
if [ "$(pkg-config --modversion tram)" != "$version" ]; then
    echo "tram.pc says $(pkg-config --modversion tram), version.h $version"
    exit 1
fi

# By pkg-config; word splitting is wanted.
# shellcheck disable=SC2046
{
    "$cc" -Wall -Werror "$work/server.c" -o "$work/pc-shared" $(pkg-config --cflags --libs tram)
    "$cc" -Wall -Werror "$work/server.c" -o "$work/pc-static" \
        $(pkg-config --static --cflags --libs tram | sed 's/-ltram\b/-l:libtram.a/')
}
echoes "pkg-config, shared" "$work/pc-shared"
echoes "pkg-config, static" "$work/pc-static"

# The examples, out of the tree.
cxx=${CXX:-c++}
mkdir "$work/examples"
cp "$source_dir"/examples/*.c "$source_dir"/examples/*/*.[ch] "$work/examples/"
# shellcheck disable=SC2046
for source in "$work"/examples/*.c "$work/server.c"; do
    program=${source%.c}
    package=tram
    if grep -q '<tram/tls.h>' "$source"; then
        package=tram-tls
        if [ ! -e "$library_dir/libtram-tls.so" ]; then continue; fi
    fi
    "$cc" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror "$source" -o "$program-c11" \
        $(pkg-config --cflags --libs $package) -pthread
    case "$source" in # they take memory from malloc as C does
    */cache-server.c | */hash-server.c | */key-value-server.c) continue ;;
    esac
    # A designated initialiser may leave members out; only g++ warns of that.
    "$cxx" -std=c++17 -Wall -Wextra -Werror -Wno-missing-field-initializers -x c++ "$source" -o "$program-c++17" \
        $(pkg-config --cflags --libs $package) -pthread
done
echo "examples: $(find "$work/examples" -name '*-c11' | wc -l) as C11, $(find "$work/examples" -name '*-c++17' | wc -l) as C++17"
for dialect in c11 c++17; do
    echoes "README's server as $dialect" "$work/server-$dialect"
    echoes "examples/echo-server as $dialect" "$work/examples/echo-server-$dialect"
done

# A program in the old names, ported by whole words. Lines with a third column are the compiler's to find.
cat >"$work/old.c" <<'OLD'
#include <stdio.h>
#include <tram/tram.h>

int main(void) {
    tram_runtime *runtime;
    tram_runtime_options options = {.workers = 2, .handle_signals = true};
    if (tram_runtime_new(&options, &runtime))
        return 1;
    tram_limit_counts counts;
    tram_sharding info;
    int status = 0;
    if (tram_runtime_worker_count(runtime) != 2)
        status = 1;
    /* Not called: it is there to be compiled. */
    if (status) {
        tram_runtime_server *server = NULL;
        tram_transport *transport = NULL;
        tram_future *future = NULL;
        const tram_socket *socket =
            (const tram_socket *)tram_transport_get_extra_info(transport, "socket", NULL);
        int fds[TRAM_UNIX_FDS_MAX] = {socket->fileno, tram_future_fd(future)};
        const tram_stdio child = {.kind = TRAM_STDIO_FD, .fd = fds[0]};
        tram_runtime_server_sharding(server, &info);
        tram_runtime_server_limit_counts(server, 0, &counts);
        tram_server_limit_counts(NULL, &counts);
        tram_transport_receive_fds(transport, 1);
        tram_transport_send_fds(transport, "x", 1, fds, 1);
        printf("%zu %zu %d\n", tram_transport_take_fds(transport, fds, 1),
               tram_runtime_server_connection_count(server, info.workers), child.fd);
    }
    tram_runtime_free(runtime);
    return status;
}
OLD
awk '!/^#/ && NF >= 2 && $1 != $2 { printf "s/\\b%s\\b/%s/g\n", $1, $2 }' "$source_dir/docs/renames.txt" >"$work/renames.sed"
sed -f "$work/renames.sed" "$work/old.c" >"$work/ported.c"
# shellcheck disable=SC2046
"$cc" -std=c11 -Wall -Wextra -Werror "$work/ported.c" -o "$work/ported-c11" $(pkg-config --cflags --libs tram)
# shellcheck disable=SC2046
"$cxx" -std=c++17 -Wall -Wextra -Werror -Wno-missing-field-initializers -x c++ "$work/ported.c" -o "$work/ported-c++17" \
    $(pkg-config --cflags --libs tram)
for dialect in c11 c++17; do LD_LIBRARY_PATH=$library_dir "$work/ported-$dialect"; done
echo "a program in the old names, ported by docs/renames.txt: ok"

# By CMake.
mkdir "$work/user"
cp "$work/server.c" "$work/user/"
cat >"$work/user/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(user C)
find_package(tram 0.1 REQUIRED)
add_executable(cmake-shared server.c)
target_link_libraries(cmake-shared tram::tram)
add_executable(cmake-static server.c)
target_link_libraries(cmake-static tram::tram-static)
CMAKE
cmake -S "$work/user" -B "$work/user/build" -G Ninja -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$prefix" \
    >"$work/cmake.log" 2>&1 && cmake --build "$work/user/build" >>"$work/cmake.log" 2>&1 || {
    cat "$work/cmake.log"
    exit 1
}
echoes "CMake, shared" "$work/user/build/cmake-shared"
echoes "CMake, static" "$work/user/build/cmake-static"

# libtram-tls, where it was built: by pkg-config and by CMake, shared and static.
if [ -e "$library_dir/libtram-tls.so" ]; then
    cat >"$work/user/tls.c" <<'TLS'
#include <stdio.h>
#include <tram/tls.h>

int main(void) {
    tram_tls_config *config;
    tram_tls_options wrong = {.ciphers = "NOTHING"};
    tram_error error;
    if (tram_tls_config_new(NULL, &config, &error) != 0)
        return 1;
    tram_tls_config_release(config);
    if (tram_tls_config_new(&wrong, &config, &error) != TRAM_ETLS)
        return 2;
    printf("%s\n", tram_error_describe(&error, 0));
    return 0;
}
TLS
    # shellcheck disable=SC2046
    {
        "$cc" -Wall -Werror "$work/user/tls.c" -o "$work/tls-pc-shared" $(pkg-config --cflags --libs tram-tls)
        "$cc" -Wall -Werror "$work/user/tls.c" -o "$work/tls-pc-static" \
            $(pkg-config --static --cflags --libs tram-tls | sed 's/-ltram-tls\b/-l:libtram-tls.a/; s/-ltram\b/-l:libtram.a/')
    }
    mkdir "$work/tls"
    cp "$work/user/tls.c" "$work/tls/"
    cat >"$work/tls/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(user C)
find_package(tram 0.1 REQUIRED COMPONENTS tls)
add_executable(tls-shared tls.c)
target_link_libraries(tls-shared tram::tls)
add_executable(tls-static tls.c)
target_link_libraries(tls-static tram::tls-static)
CMAKE
    cmake -S "$work/tls" -B "$work/tls/build" -G Ninja -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$prefix" \
        >"$work/cmake.log" 2>&1 && cmake --build "$work/tls/build" >>"$work/cmake.log" 2>&1 || {
        cat "$work/cmake.log"
        exit 1
    }
    for program in "$work/tls-pc-shared" "$work/tls-pc-static" "$work/tls/build/tls-shared" "$work/tls/build/tls-static"; do
        LD_LIBRARY_PATH=$library_dir "$program"
    done
    for program in "$work/tls-pc-static" "$work/tls/build/tls-static"; do
        if readelf -d "$program" | grep libtram; then
            echo "$program needs a shared library of tram"
            exit 1
        fi
    done
fi
if readelf -d "$library_dir/libtram.so" | grep -E 'libssl|libcrypto'; then
    echo "libtram itself needs OpenSSL"
    exit 1
fi

# The static ones carry the library; the shared ones do not.
for program in "$work/pc-static" "$work/user/build/cmake-static"; do
    if readelf -d "$program" | grep libtram; then
        echo "$program needs libtram.so"
        exit 1
    fi
done

# The programs run from where they were installed.
for program in "$prefix"/bin/tram-*; do
    if [ -x "$program" ]; then "$program" --version; fi
done
