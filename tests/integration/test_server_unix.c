/* Unix stream sockets: the rules of group U in docs/rules.md, and C-15. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/system/sys.h"
#include "support/support.h"

/* ---- Helpers ---- */

static char folder[64];

static int setup_folder(void **state) {
    strcpy(folder, "/tmp/tram-unix-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return world_setup(state);
}

static int teardown_folder(void **state) {
    int status = world_teardown(state);
    assert_int_equal(rmdir(folder), 0); /* and nothing is left in it */
    return status;
}

/* A path in the folder of the test; valid until the fourth call from now. */
static const char *in_folder(const char *name) {
    static char paths[4][100];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static bool exists(const char *path) {
    struct stat found;
    return lstat(path, &found) == 0;
}

/* Completes a server's or a connection's future; its code. */
static int finish(struct world *world, tram_future *future, void *ret_value, char *detail) {
    tram_loop_run_until_complete(world->loop, future);
    int status = tram_future_result(future, ret_value);
    const tram_error *error = tram_future_error(future);
    if (detail)
        strcpy(detail, error && error->detail ? error->detail : "");
    tram_future_release(future);
    return status;
}

static struct recorder *accepted; /* the last one that a server made */

static int server_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    accepted = recorder_new(arg, NULL);
    *ret_protocol = &accepted->base;
    return 0;
}

static int try_server(struct world *world, const void *path, size_t size, const tram_unix_server_options *options,
                      tram_server **ret_server, char *detail) {
    tram_future *future;
    void *server = NULL;
    int status = tram_loop_create_unix_server(world->loop, server_factory, world, path, size, options, &future);
    if (status)
        return status;
    status = finish(world, future, &server, detail);
    if (ret_server)
        *ret_server = server;
    return status;
}

static tram_server *server_at(struct world *world, const char *path, const tram_unix_server_options *options) {
    tram_server *server = NULL;
    char detail[300];
    int status = try_server(world, path, path ? strlen(path) : 0, options, &server, detail);
    if (status)
        fail_msg("create_unix_server: %s: %s", tram_error_name(status), detail);
    return server;
}

static void close_server(tram_server *server) {
    assert_int_equal(tram_server_close(server), 0);
    tram_server_release(server);
}

static tram_protocol *client_protocol;

static int client_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    client_protocol = &recorder_new(arg, "c")->base;
    *ret_protocol = client_protocol;
    return 0;
}

static int try_connect(struct world *world, const void *path, size_t size, const tram_unix_connection_options *options,
                       tram_transport **ret_transport, char *detail) {
    tram_future *future;
    void *transport = NULL;
    int status = tram_loop_create_unix_connection(world->loop, client_factory, world, path, size, options, &future);
    if (status)
        return status;
    status = finish(world, future, &transport, detail);
    if (ret_transport)
        *ret_transport = transport;
    return status;
}

static tram_transport *connect_path(struct world *world, const char *path) {
    tram_transport *transport = NULL;
    char detail[300];
    int status = try_connect(world, path, strlen(path), NULL, &transport, detail);
    if (status)
        fail_msg("create_unix_connection: %s: %s", tram_error_name(status), detail);
    return transport;
}

/* A plain socket, bound and listening if asked. */
static int plain_socket(const char *path, int backlog) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    tram_socket_address address;
    assert_true(fd >= 0);
    assert_int_equal(tram_socket_address_unix(path, strlen(path), &address), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address.address, address.size), 0);
    if (backlog >= 0)
        assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static int plain_connect(const char *path) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    tram_socket_address address;
    assert_int_equal(tram_socket_address_unix(path, strlen(path), &address), 0);
    if (connect(fd, (struct sockaddr *)&address.address, address.size) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static const char *text_of(const void *address) {
    static char text[TRAM_ADDRESS_TEXT_SIZE];
    return tram_socket_address_text(address, text, sizeof text);
}

static const char *info_text(tram_transport *transport, const char *name) {
    const tram_socket_address *address = tram_transport_get_extra_info(transport, name, NULL);
    return address ? text_of(address) : "null";
}

/* ---- Paths ---- */

static void test_U_1_a_path_and_its_length(void **state) {
    struct world *world = *state;
    /* What follows the length does not belong to the path. */
    const char *path = in_folder("server"), *longer = in_folder("server-and-more");
    tram_server *server = NULL;
    assert_int_equal(try_server(world, longer, strlen(path), NULL, &server, NULL), 0);
    assert_true(exists(path));
    assert_false(exists(longer));
    tram_transport *client = NULL;
    assert_int_equal(try_connect(world, longer, strlen(path), NULL, &client, NULL), 0);
    char expected[200];
    snprintf(expected, sizeof expected, "unix:%s", path);
    assert_string_equal(info_text(client, "peername"), expected);
    run_until_traced(world, "c.made");
    assert_int_equal(tram_transport_write(client, "hello", 5), 0);
    run_until_traced(world, "data:5");
    tram_socket_address name;
    assert_int_equal(tram_server_sockname(server, 0, &name), 0);
    assert_string_equal(text_of(&name), expected);
    tram_socket sockets[1];
    assert_int_equal(tram_server_sockets(server, sockets, 1), 1);
    assert_int_equal(sockets[0].family, AF_UNIX);
    tram_transport_close(client);
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, " lost:0");
    close_server(server);
    assert_false(exists(path));
}

static struct sys watched;
static unsigned stats_made, unlinks_made, binds_made, sockets_made;

static int watched_stat(const char *path, struct stat *ret_found) {
    stats_made++;
    return tram__sys.stat(path, ret_found);
}

static int watched_unlink(const char *path) {
    unlinks_made++;
    return tram__sys.unlink(path);
}

static int watched_bind(int fd, const struct sockaddr *address, socklen_t size) {
    binds_made++;
    return tram__sys.bind(fd, address, size);
}

static int watched_socket(int family, int type, int protocol) {
    sockets_made++;
    return tram__sys.socket(family, type, protocol);
}

static void watch_files(struct world *world) {
    watched = tram__sys;
    watched.stat = watched_stat;
    watched.unlink = watched_unlink;
    watched.bind = watched_bind;
    watched.socket = watched_socket;
    stats_made = unlinks_made = binds_made = sockets_made = 0;
    world_use_sys(world, &watched);
}

static void test_U_1_abstract_names_have_no_file(void **state) {
    struct world *world = *state;
    watch_files(world);
    char name[40] = "";
    /* A NUL within is a byte like any other. */
    int size = 1 + snprintf(name + 1, sizeof name - 1, "tram%c%d", 0, (int)getpid());
    tram_server *server = NULL;
    tram_transport *client = NULL;
    assert_int_equal(try_server(world, name, (size_t)size, NULL, &server, NULL), 0);
    assert_int_equal(try_connect(world, name, (size_t)size, NULL, &client, NULL), 0);
    const tram_socket_address *peer = tram_transport_get_extra_info(client, "peername", NULL);
    assert_int_equal(peer->size, offsetof(struct sockaddr_un, sun_path) + (size_t)size);
    assert_memory_equal((const char *)&peer->address + offsetof(struct sockaddr_un, sun_path), name, (size_t)size);
    /* The same name up to the NUL is another one. */
    assert_int_equal(try_connect(world, name, 5, NULL, NULL, NULL), -ECONNREFUSED);
    /* Nothing stale could be there: who has the name lives. */
    char detail[300];
    assert_int_equal(try_server(world, name, (size_t)size, NULL, NULL, detail), -EADDRINUSE);
    assert_non_null(strstr(detail, "unix:@tram"));
    tram_transport_abort(client);
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, " lost:0");
    close_server(server);
    assert_int_equal(stats_made, 0);
    assert_int_equal(unlinks_made, 0);
}

static void test_U_6_a_path_too_long_changes_nothing(void **state) {
    struct world *world = *state;
    watch_files(world);
    char path[200];
    memset(path, 'x', sizeof path);
    tram_future *future = NULL;
    tram_loop *loop = world->loop;
    const size_t sizes[] = {108, 109, 200};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(tram_loop_create_unix_server(loop, server_factory, world, path, sizes[i], NULL, &future),
                         TRAM_EVALUE);
        assert_int_equal(tram_loop_create_unix_connection(loop, client_factory, world, path, sizes[i], NULL, &future),
                         TRAM_EVALUE);
    }
    path[0] = '\0';
    assert_int_equal(tram_loop_create_unix_server(loop, server_factory, world, path, 109, NULL, &future), TRAM_EVALUE);
    /* Neither is an empty one a path, nor one that the system would cut. */
    assert_int_equal(tram_loop_create_unix_server(loop, server_factory, world, "", 0, NULL, &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_create_unix_server(loop, server_factory, world, "a\0b", 3, NULL, &future), TRAM_EVALUE);
    assert_null(future);
    assert_int_equal(stats_made + unlinks_made + binds_made + sockets_made, 0);
    /* The longest ones that are none too many. */
    tram_server *server = NULL;
    int size = snprintf(path, sizeof path, "%s/", folder);
    memset(path + size, 'y', sizeof path - (size_t)size);
    assert_int_equal(try_server(world, path, 107, NULL, &server, NULL), 0);
    tram_transport *client = NULL;
    assert_int_equal(try_connect(world, path, 107, NULL, &client, NULL), 0);
    tram_transport_abort(client);
    close_server(server);
    run_until_traced(world, " lost:0");
    memset(path, 0, 1);
    assert_int_equal(try_server(world, path, 108, NULL, &server, NULL), 0);
    close_server(server);
}

/* ---- Stale files ---- */

static void test_U_2_a_stale_socket_is_removed(void **state) {
    struct world *world = *state;
    const char *path = in_folder("stale");
    close(plain_socket(path, 5)); /* its process is gone, the file is not */
    assert_true(exists(path));
    tram_server *server = server_at(world, path, NULL);
    tram_transport_abort(connect_path(world, path));
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, " lost:0");
    close_server(server);
    /* So is one that is served still: it is not asked. */
    int other = plain_socket(path, 5);
    server = server_at(world, path, NULL);
    tram_transport_abort(connect_path(world, path));
    char byte;
    assert_int_equal(recv(other, &byte, 1, MSG_DONTWAIT), -1);
    close_server(server);
    run_until_traced(world, " lost:0 released");
    close(other);
}

static void test_U_2_anything_else_stays(void **state) {
    struct world *world = *state;
    const char *path = in_folder("precious");
    char detail[300];
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "data", 4), 4);
    close(fd);
    assert_int_equal(try_server(world, path, strlen(path), NULL, NULL, detail), -EADDRINUSE);
    assert_non_null(strstr(detail, path));
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_size, 4);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(try_server(world, path, strlen(path), NULL, NULL, detail), -EADDRINUSE);
    assert_int_equal(rmdir(path), 0);
    /* A folder that is none. */
    const char *nowhere = in_folder("no/such/folder");
    assert_int_equal(try_server(world, nowhere, strlen(nowhere), NULL, NULL, detail), -ENOENT);
    assert_non_null(strstr(detail, nowhere));
    assert_int_equal(world->errors, 0); /* of a missing file nothing is logged */
}

static int failing_call(const char *path) {
    (void)path;
    errno = EACCES;
    return -1;
}

static int failing_stat(const char *path, struct stat *ret_found) {
    (void)ret_found;
    return failing_call(path);
}

static void test_U_3_trouble_with_a_stale_file_is_logged(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    watch_files(world);
    watched.stat = failing_stat;
    tram_server *server = server_at(world, path, NULL); /* nothing was there: it works */
    assert_int_equal(world->errors, 1);
    assert_non_null(strstr(world->log, "stale"));
    assert_non_null(strstr(world->log, path));
    assert_non_null(strstr(world->log, "Permission denied"));
    close_server(server);
    /* It could not learn which file it made, and leaves it. */
    assert_true(exists(path));
    watched.stat = watched_stat;
    watched.unlink = failing_call;
    char detail[300];
    assert_int_equal(try_server(world, path, strlen(path), NULL, NULL, detail), -EADDRINUSE);
    assert_int_equal(world->errors, 2);
    unlink(path);
}

/* Whoever names a file does not write the log. */
static void test_U_3_a_path_is_one_line_of_the_log(void **state) {
    struct world *world = *state;
    const char *path = in_folder("a\x1b[2J\nerror: b");
    watch_files(world);
    watched.stat = failing_stat;
    tram_server *server = server_at(world, path, NULL);
    assert_non_null(strstr(world->log, "a\\x1b[2J\\x0aerror: b"));
    assert_null(strstr(world->log, "\x1b"));
    tram_socket sockets[1];
    tram_socket_address name = {.size = sizeof name.address};
    assert_int_equal(tram_server_sockets(server, sockets, 1), 1);
    assert_int_equal(getsockname(sockets[0].fd, (struct sockaddr *)&name.address, &name.size), 0);
    assert_non_null(strstr(text_of(&name), "a\\x1b[2J\\x0aerror: b"));
    close_server(server);
    unlink(path);
}

/* ---- Path and socket ---- */

static void test_U_4_path_or_socket(void **state) {
    struct world *world = *state;
    tram_loop *loop = world->loop;
    const char *path = in_folder("both");
    int fd = plain_socket(in_folder("given"), -1), pair[2], file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    uint16_t port;
    int inet = tcp_listener(5, &port), datagram = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), closed = 1000;
    tcp_pair(pair);
    tram_future *future = NULL;
    tram_unix_server_options options = {.sock = &fd};
    assert_int_equal(tram_loop_create_unix_server(loop, server_factory, world, path, strlen(path), &options, &future),
                     TRAM_EVALUE);
    assert_int_equal(tram_loop_create_unix_server(loop, server_factory, world, NULL, 0, NULL, &future), TRAM_EVALUE);
    const int *const bad[] = {&inet, &datagram, &file};
    for (size_t i = 0; i < 3; i++) {
        options.sock = bad[i];
        assert_int_equal(tram_loop_create_unix_server(loop, server_factory, world, NULL, 0, &options, &future),
                         TRAM_EVALUE);
    }
    options.sock = &closed;
    assert_int_equal(tram_loop_create_unix_server(loop, server_factory, world, NULL, 0, &options, &future), -EBADF);
    options = (tram_unix_server_options){.backlog = -1};
    assert_int_equal(tram_loop_create_unix_server(loop, server_factory, world, path, strlen(path), &options, &future),
                     TRAM_EVALUE);
    options = (tram_unix_server_options){.reserved = {1}};
    assert_int_equal(tram_loop_create_unix_server(loop, server_factory, world, path, strlen(path), &options, &future),
                     TRAM_EVALUE);
    assert_int_equal(tram_loop_create_unix_server(loop, NULL, world, path, strlen(path), NULL, &future), TRAM_EVALUE);
    assert_null(future);
    assert_false(exists(path));
    close(pair[0]), close(pair[1]), close(file), close(inet), close(datagram);
    /* The right one is taken, and begins to listen. */
    options = (tram_unix_server_options){.sock = &fd};
    tram_server *server = server_at(world, NULL, &options);
    tram_transport_abort(connect_path(world, in_folder("given")));
    run_until_traced(world, " lost:0 released");
    close_server(server);
    assert_false(exists(in_folder("given")));
}

/* ---- Cleaning up ---- */

static void test_U_5_closing_removes_the_file(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    close_server(server_at(world, path, NULL));
    assert_false(exists(path));
    /* Unless it was not to. */
    const tram_unix_server_options keep = {.keep_socket_file = true};
    close_server(server_at(world, path, &keep));
    assert_true(exists(path));
    /* The end of the loop closes as well. */
    tram_server *server = server_at(world, path, NULL);
    tram_server_release(server);
    world_reopen(world);
    assert_false(exists(path));
    assert_int_equal(world->errors, 0);
}

static void test_U_5_only_the_file_that_it_made(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server"), *moved = in_folder("moved");
    tram_server *server = server_at(world, path, NULL), *second = server_at(world, path, NULL);
    close_server(server); /* the second one has the path by now */
    assert_true(exists(path));
    tram_transport_abort(connect_path(world, path));
    run_until_traced(world, " lost:0 released");
    /* A missing file is fine. */
    assert_int_equal(unlink(path), 0);
    close_server(second);
    assert_int_equal(world->errors, 0);
    /* One that was moved is somebody's. */
    server = server_at(world, path, NULL);
    assert_int_equal(rename(path, moved), 0);
    close_server(server);
    assert_true(exists(moved));
    unlink(moved);
    /* Anything else at the path is not ours. */
    server = server_at(world, path, NULL);
    assert_int_equal(unlink(path), 0);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    close(fd);
    close_server(server);
    assert_true(exists(path));
    unlink(path);
    assert_int_equal(world->errors, 0);
}

static void test_U_5_other_errors_are_logged(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    watch_files(world);
    tram_server *server = server_at(world, path, NULL);
    watched.unlink = failing_call;
    close_server(server);
    assert_int_equal(world->errors, 1);
    assert_non_null(strstr(world->log, path));
    assert_int_equal(unlink(path), 0);
}

static void test_U_5_the_file_goes_when_creation_is_cancelled(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    tram_future *future;
    assert_int_equal(
        tram_loop_create_unix_server(world->loop, server_factory, world, path, strlen(path), NULL, &future), 0);
    assert_true(exists(path));
    tram_future_cancel(future);
    assert_int_equal(finish(world, future, NULL, NULL), TRAM_ECANCELLED);
    assert_false(exists(path));
}

static void test_U_5_the_file_goes_when_memory_runs_out(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    unsigned failures = 0;
    for (size_t after = 0; after < 50; after++) {
        tram_future *future = NULL;
        world->fail_after = after;
        int status =
            tram_loop_create_unix_server(world->loop, server_factory, world, path, strlen(path), NULL, &future);
        world->fail_after = SIZE_MAX;
        void *server = NULL;
        if (!status)
            status = finish(world, future, &server, NULL);
        if (!status) {
            close_server(server);
            assert_false(exists(path));
            break;
        }
        assert_int_equal(status, -ENOMEM);
        assert_false(exists(path));
        failures++;
    }
    assert_in_range(failures, 2, 49);
}

/* ---- Who is there ---- */

static void test_U_7_a_client_without_a_name(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    tram_server *server = server_at(world, path, NULL);
    int fd = plain_connect(path);
    run_until_traced(world, "made");
    tram_transport *transport = accepted->base.transport;
    const tram_socket_address *peer = tram_transport_get_extra_info(transport, "peername", NULL);
    assert_non_null(peer);
    assert_int_equal(peer->size, sizeof(sa_family_t));
    assert_int_equal(peer->address.ss_family, AF_UNIX);
    assert_string_equal(text_of(peer), "unix:");
    char expected[200];
    snprintf(expected, sizeof expected, "unix:%s", path);
    assert_string_equal(info_text(transport, "sockname"), expected);
    /* A hold keeps all of it. */
    tram_transport_hold(transport);
    close(fd);
    run_until_traced(world, "released");
    assert_string_equal(info_text(transport, "peername"), "unix:");
    assert_string_equal(info_text(transport, "sockname"), expected);
    tram_transport_release(transport);
    close_server(server);
}

static void test_U_7_names_are_kept_past_the_end(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server"), *own = in_folder("client");
    tram_server *server = server_at(world, path, NULL);
    /* A client that has a name. */
    int fd = plain_socket(own, -1);
    tram_socket_address address;
    tram_socket_address_unix(path, strlen(path), &address);
    assert_int_equal(connect(fd, (struct sockaddr *)&address.address, address.size), 0);
    run_until_traced(world, "made");
    tram_transport *served_one = tram_transport_hold(accepted->base.transport);
    tram_transport *client = tram_transport_hold(connect_path(world, path));
    close(fd);
    close_server(server);
    tram_transport_abort(client);
    run_until_traced(world, "lost:0 released");
    run_until_traced(world, "c.released");
    char expected[200];
    snprintf(expected, sizeof expected, "unix:%s", own);
    assert_string_equal(info_text(served_one, "peername"), expected);
    snprintf(expected, sizeof expected, "unix:%s", path);
    assert_string_equal(info_text(client, "peername"), expected);
    assert_string_equal(info_text(client, "sockname"), "unix:");
    tram_transport_release(served_one);
    tram_transport_release(client);
    run_ticks(world, 2);
    unlink(own);
}

/* rules: U-7 */
static void test_peer_credentials(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    tram_server *server = server_at(world, path, NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int fd = plain_connect(path);
        char byte;
        _exit(fd < 0 || recv(fd, &byte, 1, 0) != 0);
    }
    run_until_traced(world, "made");
    tram_transport *transport = accepted->base.transport;
    const tram_peer_credentials *peer = tram_transport_get_extra_info(transport, "peercred", NULL);
    assert_non_null(peer);
    assert_int_equal(peer->pid, child);
    assert_int_equal(peer->uid, getuid());
    assert_int_equal(peer->gid, getgid());
    tram_transport_close(transport);
    run_until_traced(world, "lost:0");
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close_server(server);
    /* TCP does not know. */
    struct wire wire = wire_new_made(world, recorder_new(world, "tcp"));
    assert_null(tram_transport_get_extra_info(wire.transport, "peercred", NULL));
    tram_transport_abort(wire.transport);
    close(wire.peer);
    run_until_traced(world, "tcp.lost:0");
}

/* ---- As on TCP ---- */

static void test_U_8_half_close(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    tram_server *server = server_at(world, path, NULL);
    tram_transport *client = connect_path(world, path);
    run_until_traced(world, "c.made");
    accepted->eof_returns = 1;
    assert_true(tram_transport_can_write_eof(client));
    world->trace[0] = '\0';
    assert_int_equal(tram_transport_write(client, "question", 8), 0);
    assert_int_equal(tram_transport_write_eof(client), 0);
    run_until_traced(world, "eof");
    assert_trace(world, "data:8 eof");
    assert_int_equal(tram_transport_write(accepted->base.transport, "answer", 6), 0);
    run_until_traced(world, "c.data:6");
    tram_transport_close(accepted->base.transport);
    run_until_traced(world, "c.released");
    run_until_traced(world, " released");
    assert_non_null(strstr(world->trace, "c.eof c.lost:0"));
    close_server(server);
}

static void test_U_8_a_reset(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    tram_server *server = server_at(world, path, NULL);
    int fd = plain_connect(path);
    run_until_traced(world, "made");
    tram_transport *transport = accepted->base.transport;
    assert_int_equal(tram_transport_write(transport, "unread", 6), 0);
    close(fd); /* with bytes that nobody read */
    run_until_traced(world, "lost");
    assert_non_null(strstr(world->trace, "lost:ECONNRESET"));
    close_server(server);
}

/* ---- Connecting ---- */

static void test_C_15_path_or_socket(void **state) {
    struct world *world = *state;
    tram_loop *loop = world->loop;
    const char *path = in_folder("server");
    int pair[2], inet[2], datagram = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    unix_pair(pair);
    tcp_pair(inet);
    tram_future *future = NULL;
    tram_unix_connection_options options = {.sock = &pair[0]};
    assert_int_equal(
        tram_loop_create_unix_connection(loop, client_factory, world, path, strlen(path), &options, &future),
        TRAM_EVALUE);
    assert_int_equal(tram_loop_create_unix_connection(loop, client_factory, world, NULL, 0, NULL, &future),
                     TRAM_EVALUE);
    const int *const bad[] = {&inet[0], &datagram};
    for (size_t i = 0; i < 2; i++) {
        options.sock = bad[i];
        assert_int_equal(tram_loop_create_unix_connection(loop, client_factory, world, NULL, 0, &options, &future),
                         TRAM_EVALUE);
    }
    const tram_unix_connection_options without_tls[] = {
        {.server_hostname = ""}, {.tls_handshake_timeout_ns = 1}, {.tls_shutdown_timeout_ns = 1}, {.reserved = {1}}};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(
            tram_loop_create_unix_connection(loop, client_factory, world, path, strlen(path), &without_tls[i], &future),
            TRAM_EVALUE);
    assert_int_equal(tram_loop_create_unix_connection(loop, NULL, world, path, strlen(path), NULL, &future),
                     TRAM_EVALUE);
    assert_null(future);
    assert_trace(world, "");
    close(inet[0]), close(inet[1]), close(datagram);
    /* The right one is taken. */
    options = (tram_unix_connection_options){.sock = &pair[0]};
    tram_transport *transport = NULL;
    assert_int_equal(try_connect(world, NULL, 0, &options, &transport, NULL), 0);
    assert_string_equal(info_text(transport, "peername"), "unix:");
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    char byte;
    receive_exactly(world, pair[1], &byte, 1);
    close(pair[1]);
    run_until_traced(world, "c.lost:0");
}

static void test_C_15_errors_of_the_system(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    char detail[300];
    assert_int_equal(try_connect(world, path, strlen(path), NULL, NULL, detail), -ENOENT);
    assert_non_null(strstr(detail, path));
    close(plain_socket(path, 5));
    assert_int_equal(try_connect(world, path, strlen(path), NULL, NULL, detail), -ECONNREFUSED);
    assert_non_null(strstr(detail, path));
    unlink(path);
    /* What is no socket refuses, too. */
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(try_connect(world, path, strlen(path), NULL, NULL, detail), -ECONNREFUSED);
    unlink(path);
    assert_trace(world, ""); /* no protocol was made for any of them (C-12) */
}

static void test_C_18_a_path_is_tried_again(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    tram_future *future;
    tram_unix_connection_options options = {.retry = {.limit = TRAM_RETRY_FOREVER, .delay_ns = 1}};
    assert_int_equal(
        tram_loop_create_unix_connection(world->loop, client_factory, world, path, strlen(path), &options, &future), 0);
    run_ticks(world, 5);
    assert_false(tram_future_done(future));
    int listener = plain_socket(path, 5);
    void *transport = NULL;
    assert_int_equal(finish(world, future, &transport, NULL), 0);
    tram_transport_abort(transport);
    run_until_traced(world, "c.lost:0");
    close(listener);
    unlink(path);
    options.retry.limit = 2;
    char detail[300];
    assert_int_equal(try_connect(world, path, strlen(path), &options, NULL, detail), -ENOENT);
    options.sock = &listener;
    assert_wrong(tram_loop_create_unix_connection(world->loop, client_factory, world, NULL, 0, &options, NULL),
                 "retry.limit");
    options = (tram_unix_connection_options){.retry = {.delay_ns = 1}};
    assert_wrong(
        tram_loop_create_unix_connection(world->loop, client_factory, world, path, strlen(path), &options, NULL),
        "retry.limit");
}

/* rules: C-15, L-38 */
static void test_a_full_backlog_is_waited_for(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    int listener = plain_socket(path, 0), waiting[8], count = 0;
    /* Fill the queue until the kernel has enough. */
    for (int full = 0; !full && count < 8;) {
        tram_socket_address address;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        tram_socket_address_unix(path, strlen(path), &address);
        full = connect(fd, (struct sockaddr *)&address.address, address.size) < 0;
        assert_true(!full || errno == EAGAIN);
        waiting[count++] = fd;
    }
    int before = open_descriptors();
    tram_future *future;
    const tram_unix_connection_options options = {.timeout_ns = 30000000};
    assert_int_equal(
        tram_loop_create_unix_connection(world->loop, client_factory, world, path, strlen(path), &options, &future), 0);
    char detail[300];
    assert_int_equal(finish(world, future, NULL, detail), TRAM_ETIMEOUT);
    assert_int_equal(open_descriptors(), before);
    assert_int_equal(
        tram_loop_create_unix_connection(world->loop, client_factory, world, path, strlen(path), NULL, &future), 0);
    run_ticks(world, 5);
    assert_false(tram_future_done(future));
    assert_trace(world, "");
    tram_future_cancel(future);
    assert_int_equal(finish(world, future, NULL, NULL), TRAM_ECANCELLED);
    assert_int_equal(
        tram_loop_create_unix_connection(world->loop, client_factory, world, path, strlen(path), NULL, &future), 0);
    run_ticks(world, 5);
    int taken = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    void *transport = NULL;
    assert_int_equal(finish(world, future, &transport, NULL), 0);
    tram_transport_abort(transport);
    run_until_traced(world, "c.lost:0");
    close(taken), close(listener);
    while (count)
        close(waiting[--count]);
    unlink(path);
}

/* ---- On all workers ---- */

static _Atomic unsigned served[2];

static int echo_received(tram_protocol *protocol, const void *data, size_t size) {
    return tram_transport_write(protocol->transport, data, size);
}

static void echo_released(tram_protocol *protocol) {
    free(protocol);
}

static const tram_protocol_ops echo_ops = {.data_received = echo_received, .released = echo_released};

static int echo_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    tram_runtime *const *runtime = arg;
    served[loop == tram_runtime_loop(*runtime, 1)]++;
    tram_protocol *protocol = calloc(1, sizeof *protocol);
    protocol->ops = &echo_ops;
    *ret_protocol = protocol;
    return 0;
}

static tram_runtime *runtime_new(struct world *world) {
    const tram_runtime_options options = {.workers = 2, .loop = {.allocator = world->options.allocator}};
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    return runtime;
}

/* rules: U-1, U-5 */
static void test_one_path_is_served_by_all_workers(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    tram_runtime *runtime = runtime_new(world);
    tram_runtime_server *server;
    tram_error error = {0};
    served[0] = served[1] = 0;
    close(plain_socket(path, 5)); /* a stale one goes here as well */
    assert_int_equal(
        tram_runtime_create_unix_server(runtime, echo_factory, &runtime, path, strlen(path), NULL, &server, &error), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    tram_socket_address address;
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    char expected[200];
    snprintf(expected, sizeof expected, "unix:%s", path);
    assert_string_equal(text_of(&address), expected);
    int fds[200];
    for (int i = 0; i < 200; i++) { /* all at once: one worker would have to hand over */
        fds[i] = plain_connect(path);
        assert_true(fds[i] >= 0);
        char byte = (char)i;
        assert_int_equal(send(fds[i], &byte, 1, 0), 1);
        byte = 0;
        assert_int_equal(recv(fds[i], &byte, 1, 0), 1);
        assert_int_equal(byte, (char)i);
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_in_range(served[i], 75, 125); /* V-26: no worker has a quarter more than its share */
        assert_int_equal(tram_runtime_server_connection_count(server, i), served[i]);
    }
    for (int i = 0; i < 200; i++)
        close(fds[i]);
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_false(exists(path));
    tram_runtime_free(runtime);
}

/* Tells its client what it knows of it. */
static int greet(tram_protocol *protocol, tram_transport *transport) {
    (void)protocol;
    char text[TRAM_ADDRESS_TEXT_SIZE]; /* not text_of(): this runs on several threads */
    const tram_socket_address *peer = tram_transport_get_extra_info(transport, "peername", NULL);
    tram_socket_address_text(peer, text, sizeof text);
    return tram_transport_write(transport, text, strlen(text) + 1);
}

static const tram_protocol_ops greeting_ops = {.connection_made = greet, .released = echo_released};

static int greeting_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    int status = echo_factory(loop, arg, ret_protocol);
    (*ret_protocol)->ops = &greeting_ops;
    return status;
}

static int wait_at_gate(tram_loop *loop, void *arg) {
    (void)loop;
    pthread_barrier_wait(arg);
    pthread_barrier_wait(arg);
    return 0;
}

/* rules: U-7, V-26 */
static void test_names_survive_the_way_to_another_worker(void **state) {
    enum { CLIENTS = 16 };
    struct world *world = *state;
    const char *path = in_folder("server"), *own = in_folder("client");
    tram_runtime *runtime = runtime_new(world);
    tram_runtime_server *server;
    tram_sharding info;
    tram_socket_address address;
    served[0] = served[1] = 0;
    assert_int_equal(
        tram_runtime_create_unix_server(runtime, greeting_factory, &runtime, path, strlen(path), NULL, &server, NULL),
        0);
    assert_int_equal(tram_runtime_server_sharding(server, &info), 0);
    assert_int_equal(info.shard, TRAM_SHARD_SHARED);
    assert_int_equal(info.listening, 2);
    assert_int_equal(tram_runtime_start(runtime), 0);
    /* One worker accepts all of them: the other is held up. Every second one has a name. */
    pthread_barrier_t gate;
    pthread_barrier_init(&gate, NULL, 2);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 1), wait_at_gate, &gate, NULL), 0);
    pthread_barrier_wait(&gate);
    tram_socket_address_unix(path, strlen(path), &address);
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = i % 2 ? plain_socket(own, -1) : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&address.address, address.size), 0);
        unlink(own);
    }
    while (tram_runtime_server_connection_count(server, 0) + tram_runtime_server_connection_count(server, 1) < CLIENTS)
        usleep(1000);
    pthread_barrier_wait(&gate);
    for (int i = 0; i < CLIENTS; i++) {
        char expected[200], text[200];
        int size = snprintf(expected, sizeof expected, "unix:%s", i % 2 ? own : "") + 1;
        assert_int_equal(recv(fds[i], text, (size_t)size, MSG_WAITALL), size);
        assert_string_equal(text, expected);
        close(fds[i]);
    }
    assert_in_range(served[1], 4, CLIENTS / 2);
    tram_stats stats;
    assert_int_equal(tram_runtime_stats(runtime, 1, &stats), 0);
    assert_int_equal(stats.taken_over, served[1]);
    tram_runtime_free(runtime);
    pthread_barrier_destroy(&gate);
}

/* rules: U-2, U-4, U-5, U-6 */
static void test_errors_and_ends_of_a_server_on_all_workers(void **state) {
    struct world *world = *state;
    const char *path = in_folder("server");
    size_t size = strlen(path);
    tram_runtime *runtime = runtime_new(world);
    tram_runtime_server *server;
    tram_error error = {0};
    char long_path[200] = "x";
    int fd = 1;
    const tram_unix_server_options with_sock = {.sock = &fd}, deferred = {.defer_serving = true};
    assert_int_equal(
        tram_runtime_create_unix_server(runtime, echo_factory, &runtime, NULL, 0, &with_sock, &server, &error),
        TRAM_EVALUE);
    assert_int_equal(
        tram_runtime_create_unix_server(runtime, echo_factory, &runtime, path, size, &deferred, &server, &error),
        TRAM_EVALUE);
    memset(long_path, 'x', sizeof long_path);
    assert_int_equal(
        tram_runtime_create_unix_server(runtime, echo_factory, &runtime, long_path, 150, NULL, &server, &error),
        TRAM_EVALUE);
    assert_int_equal(error.code, TRAM_EVALUE);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(
        tram_runtime_create_unix_server(runtime, echo_factory, &runtime, path, size, NULL, &server, &error),
        -EADDRINUSE);
    assert_non_null(strstr(error.detail, path));
    rmdir(path);
    /* Closed, or freed, before anyone served it. */
    assert_int_equal(
        tram_runtime_create_unix_server(runtime, echo_factory, &runtime, path, size, NULL, &server, &error), 0);
    assert_true(exists(path));
    assert_int_equal(tram_runtime_server_close(server), 0);
    assert_false(exists(path));
    assert_int_equal(tram_runtime_create_unix_server(runtime, echo_factory, &runtime, path, size, NULL, NULL, NULL), 0);
    assert_true(exists(path));
    tram_runtime_free(runtime);
    assert_false(exists(path));
    /* While the workers run, and with the file left. */
    runtime = runtime_new(world);
    assert_int_equal(tram_runtime_start(runtime), 0);
    const tram_unix_server_options keep = {.keep_socket_file = true};
    assert_int_equal(
        tram_runtime_create_unix_server(runtime, echo_factory, &runtime, path, size, &keep, &server, &error), 0);
    fd = plain_connect(path);
    assert_true(fd >= 0);
    close(fd);
    tram_runtime_free(runtime);
    assert_true(exists(path));
    assert_int_equal(plain_connect(path), -1);
    assert_int_equal(errno, ECONNREFUSED);
    unlink(path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup_folder, teardown_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(U_1_a_path_and_its_length),
        TEST(U_1_abstract_names_have_no_file),
        TEST(U_6_a_path_too_long_changes_nothing),
        TEST(U_2_a_stale_socket_is_removed),
        TEST(U_2_anything_else_stays),
        TEST(U_3_trouble_with_a_stale_file_is_logged),
        TEST(U_3_a_path_is_one_line_of_the_log),
        TEST(U_4_path_or_socket),
        TEST(U_5_closing_removes_the_file),
        TEST(U_5_only_the_file_that_it_made),
        TEST(U_5_other_errors_are_logged),
        TEST(U_5_the_file_goes_when_creation_is_cancelled),
        TEST(U_5_the_file_goes_when_memory_runs_out),
        TEST(U_7_a_client_without_a_name),
        TEST(U_7_names_are_kept_past_the_end),
        cmocka_unit_test_setup_teardown(test_peer_credentials, setup_folder, teardown_folder),
        TEST(U_8_half_close),
        TEST(U_8_a_reset),
        TEST(C_15_path_or_socket),
        TEST(C_15_errors_of_the_system),
        cmocka_unit_test_setup_teardown(test_C_18_a_path_is_tried_again, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_a_full_backlog_is_waited_for, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_one_path_is_served_by_all_workers, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_names_survive_the_way_to_another_worker, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_errors_and_ends_of_a_server_on_all_workers, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
