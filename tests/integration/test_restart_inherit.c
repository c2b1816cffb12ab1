/* Listening sockets from elsewhere: given to servers, passed by systemd, taken over from the process before. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/limits.h"
#include "support/support.h"

/* ---- Sockets ---- */

/* `count` of them; on one address, or on one each. */
static void listeners(int *fds, size_t count, bool together) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (size_t i = 0; i < count; i++) {
        socklen_t size = sizeof address;
        int on = 1;
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fds[i] >= 0);
        assert_int_equal(setsockopt(fds[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
        assert_int_equal(setsockopt(fds[i], SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
        if (!together)
            address.sin_port = 0;
        assert_int_equal(bind(fds[i], (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(getsockname(fds[i], (struct sockaddr *)&address, &size), 0);
    }
    for (size_t i = 0; i < count; i++)
        assert_int_equal(listen(fds[i], 100), 0);
}

static uint16_t port_of(const tram_socket_address *address) {
    struct sockaddr_in inet;
    memcpy(&inet, &address->address, sizeof inet);
    return ntohs(inet.sin_port);
}

static uint16_t port_of_fd(int fd) {
    tram_socket_address address = {.size = sizeof address.address};
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address.address, &address.size), 0);
    return port_of(&address);
}

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

/* Paths of this process in a folder of its own. */
static char folder[32];

static const char *in_folder(const char *name) {
    static char paths[4][64];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static bool exists(const char *path) {
    struct stat found;
    return lstat(path, &found) == 0;
}

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/tram-inherit-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return rmdir(folder);
}

static int unix_connect(const char *path) {
    tram_socket_address address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(tram_socket_address_unix(path, strlen(path), &address), 0);
    if (connect(fd, (struct sockaddr *)&address.address, address.size) == 0)
        return fd;
    close(fd);
    return -1;
}

/* ---- A server that says who it is ---- */

struct host {
    tram_protocol base;
    char name;
};

static int host_made(tram_protocol *protocol, tram_transport *transport) {
    return tram_transport_write(transport, &((struct host *)protocol)->name, 1);
}

static void host_released(tram_protocol *protocol) {
    free(protocol);
}

static const tram_protocol_ops host_ops = {.connection_made = host_made, .released = host_released};

/* arg: the name. */
static int host_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    struct host *host = calloc(1, sizeof *host);
    *host = (struct host){.base.ops = &host_ops, .name = *(const char *)arg};
    *ret_protocol = &host->base;
    return 0;
}

static char old_name = 'o', new_name = 'n';

static void assert_greeted(int fd, char name) {
    char byte = 0;
    assert_true(fd >= 0);
    receive_exactly(NULL, fd, &byte, 1);
    assert_int_equal(byte, name);
    close(fd);
}

/* Why listeners were not taken over, as old processes tell it. */
static _Atomic unsigned gone, nonsensical;

static void hear(void *arg, tram_log_level level, const char *line) {
    (void)arg;
    (void)level;
    gone += strstr(line, "not taken over") && strstr(line, "(TRAM_EINCOMPLETE)");
    nonsensical += strstr(line, "not taken over") && strstr(line, "(EPROTO)");
}

static tram_runtime *runtime_new(struct world *world, unsigned workers) {
    tram_runtime_options options = {.workers = workers, .loop = {.allocator = world->options.allocator, .log = hear}};
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    return runtime;
}

static tram_runtime_server *serve(tram_runtime *runtime, char *name, const tram_server_options *options) {
    tram_runtime_server *server;
    tram_error error = {0};
    bool given = options->sockets;
    int status = tram_runtime_create_server(runtime, host_factory, name, given ? NULL : "127.0.0.1", given ? NULL : "0",
                                            options, &server, &error);
    if (status)
        fail_msg("create_server: %s: %s", tram_error_name(status), error.detail ? error.detail : "");
    return server;
}

static tram_runtime_server *serve_path(tram_runtime *runtime, char *name, const char *path,
                                       const tram_unix_server_options *options) {
    tram_runtime_server *server;
    assert_int_equal(tram_runtime_create_unix_server(runtime, host_factory, name, path, path ? strlen(path) : 0,
                                                     options, &server, NULL),
                     0);
    return server;
}

/* ---- What is refused while a runtime gets something to serve ---- */

static int make_server(tram_runtime *runtime, tram_error *ret_error) {
    const tram_server_options options = {.shard = TRAM_SHARD_REUSEPORT};
    return tram_runtime_create_server(runtime, host_factory, &old_name, "127.0.0.1", "0", &options, NULL, ret_error);
}

static int make_endpoint(tram_runtime *runtime, tram_error *ret_error) {
    const tram_datagram_options options = {.local_host = "127.0.0.1", .local_port = "0"};
    return tram_runtime_create_datagram_endpoint(runtime, host_factory, &old_name, &options, NULL, ret_error);
}

static void test_X_1_what_is_refused_while_a_runtime_gets_a_server_is_its_error(void **state) {
    (void)state;
    static const struct {
        tram_fault_kind kind;
        int error;
    } refused[] = {{TRAM_FAULT_ALLOCATE, ENOMEM}, {TRAM_FAULT_SOCKET, EMFILE}, {TRAM_FAULT_BIND, EACCES}};
    int (*const makers[])(tram_runtime *, tram_error *) = {make_server, make_endpoint};
    for (int running = 0; running < 2; running++) {
        tram_faults *faults;
        assert_int_equal(tram_faults_new(NULL, &faults), 0);
        tram_runtime_options runtime_options = {.workers = 2, .loop = {.faults = faults}};
        tram_runtime *runtime;
        unsigned failed = 0;
        size_t blocks;
        assert_int_equal(tram_runtime_new(&runtime_options, &runtime), 0);
        assert_int_equal(running ? tram_runtime_start(runtime) : 0, 0);
        for (size_t i = 0; i < sizeof refused / sizeof *refused * 2; i++) {
            uint64_t injected = 1;
            for (uint64_t n = 1; injected; n++) {
                tram_error error = {0};
                assert_true(n < 200);
                assert_int_equal(tram_faults_fail(faults, refused[i / 2].kind, n, 1, refused[i / 2].error), 0);
                int status = makers[i % 2](runtime, &error);
                injected = tram_faults_injected(faults);
                tram_faults_reset(faults);
                assert_true(status == 0 || (injected && status == -refused[i / 2].error));
                assert_int_equal(error.code, status);
                assert_int_equal(status != 0, error.operation != NULL);
                failed += status != 0;
            }
        }
        assert_true(failed >= 12);
        tram_runtime_free(runtime);
        tram_faults_memory(faults, &blocks, NULL);
        assert_int_equal(blocks, 0);
        tram_faults_free(faults);
    }
}

/* ---- Servers on sockets that are given ---- */

static const tram_server_options every_way[] = {
    {.shard = TRAM_SHARD_REUSEPORT}, {.shard = TRAM_SHARD_REUSEPORT, .keep_where_accepted = true},
    {.shard = TRAM_SHARD_HANDOFF},   {.shard = TRAM_SHARD_SHARED, .keep_where_accepted = true},
    {.shard = TRAM_SHARD_FIXED},
};

static void check_served(struct world *world, const tram_server_options *way, size_t count, unsigned workers,
                         bool together) {
    int fds[5];
    uint16_t ports[5];
    tram_server_options options = *way;
    tram_sharding info;
    listeners(fds, count, together);
    for (size_t i = 0; i < count; i++)
        ports[i] = port_of_fd(fds[i]);
    options.sockets = fds;
    options.socket_count = count;
    options.shard_worker = way->shard == TRAM_SHARD_FIXED ? workers - 1 : 0;
    tram_runtime *runtime = runtime_new(world, workers);
    tram_runtime_server *server = serve(runtime, &new_name, &options);
    for (size_t i = 0; i < count; i++)
        assert_false(is_open(fds[i])); /* the workers have their own */
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_runtime_server_sharding(server, &info), 0);
    bool fewer = (together ? count : 1) < workers;
    assert_int_equal(info.shard, options.shard == TRAM_SHARD_REUSEPORT && fewer ? TRAM_SHARD_SHARED : options.shard);
    assert_int_equal(info.listening,
                     options.shard == TRAM_SHARD_HANDOFF || options.shard == TRAM_SHARD_FIXED ? 1 : workers);
    /* Of one address the kernel chooses: with so many, each of its sockets. */
    for (size_t i = 0; i < count; i++)
        for (int j = 0; j < (together ? 12 : 2); j++)
            assert_greeted(tcp_connect(ports[i]), 'n');
    tram_socket_address address;
    for (size_t i = 0; i < (together ? 1 : count); i++) {
        assert_int_equal(tram_runtime_server_sockname(server, i, &address), 0);
        assert_int_equal(port_of(&address), ports[i]);
    }
    assert_int_equal(tram_runtime_server_sockname(server, together ? 1 : count, &address), TRAM_EVALUE);
    tram_runtime_free(runtime);
    for (size_t i = 0; i < count; i++)
        assert_nobody_listens(ports[i]);
}

static void test_V_45_each_socket_is_served(void **state) {
    for (size_t way = 0; way < sizeof every_way / sizeof *every_way; way++)
        for (size_t count = 1; count <= 5; count += 2)
            for (unsigned workers = 1; workers <= 3; workers++) {
                check_served(*state, &every_way[way], count, workers, true);
                check_served(*state, &every_way[way], count, workers, false);
            }
}

static void test_V_45_steering_needs_a_socket_each(void **state) {
    tram_runtime *runtime = runtime_new(*state, 2);
    int fds[3];
    listeners(fds, 3, true);
    tram_server_options options = {.sockets = fds, .socket_count = 3, .steer = TRAM_STEER_CPU};
    tram_runtime_server *server;
    assert_int_equal(tram_runtime_create_server(runtime, host_factory, &new_name, NULL, NULL, &options, &server, NULL),
                     TRAM_EVALUE);
    assert_true(is_open(fds[0])); /* still the caller's */
    close(fds[2]);
    options.socket_count = 2;
    uint16_t port = port_of_fd(fds[0]);
    server = serve(runtime, &new_name, &options);
    assert_int_equal(tram_runtime_start(runtime), 0);
    for (int i = 0; i < 10; i++)
        assert_greeted(tcp_connect(port), 'n');
    tram_runtime_free(runtime);
}

/* Each option that a server sets, refused in turn: the call fails, and says what it was about. */
static void test_V_45_a_refused_option_is_told_with_its_address(void **state) {
    (void)state;
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    tram_runtime_options runtime_options = {.workers = 2, .loop = {.faults = faults}};
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&runtime_options, &runtime), 0);
    const tram_server_options options = {.shard = TRAM_SHARD_REUSEPORT, .steer = TRAM_STEER_CPU};
    bool steered = false;
    int status = -EPERM;
    for (unsigned n = 1; status; n++) {
        tram_runtime_server *server;
        tram_error error = {0};
        assert_true(n < 100);
        assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_SETSOCKOPT, n, 1, EPERM), 0);
        status =
            tram_runtime_create_server(runtime, host_factory, &new_name, "127.0.0.1", "0", &options, &server, &error);
        tram_faults_reset(faults);
        if (status) {
            assert_non_null(error.operation);
            assert_int_equal(error.code, status);
            assert_non_null(strstr(error.detail, "127.0.0.1"));
            steered = steered || strcmp(error.operation, "steer") == 0;
        }
    }
    assert_true(steered);
    tram_runtime_free(runtime);
    tram_faults_free(faults);
}

static void test_V_45_bad_sockets_stay_the_callers(void **state) {
    struct world *world = *state;
    tram_runtime *runtime = runtime_new(world, 2);
    int fds[2], datagram = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0),
                none = open("/dev/null", O_RDONLY | O_CLOEXEC);
    listeners(fds, 1, true);
    int fds_twice[] = {fds[0], fds[0]};
    int with_datagram[] = {fds[0], datagram}, with_none[] = {fds[0], none}, with_closed[] = {fds[0], -1};
    const struct {
        tram_server_options options;
        int code;
    } cases[] = {
        {{.sockets = fds}, TRAM_EVALUE},
        {{.socket_count = 1}, TRAM_EVALUE},
        {{.sockets = fds, .socket_count = 1, .sock = fds}, TRAM_EVALUE},
        {{.sockets = fds_twice, .socket_count = 2}, TRAM_EVALUE},
        {{.sockets = with_datagram, .socket_count = 2}, TRAM_EVALUE},
        {{.sockets = with_none, .socket_count = 2}, TRAM_EVALUE},
        {{.sockets = with_closed, .socket_count = 2}, -EBADF},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tram_error error = {0};
        assert_int_equal(
            tram_runtime_create_server(runtime, host_factory, &new_name, NULL, NULL, &cases[i].options, NULL, &error),
            cases[i].code);
        assert_int_equal(error.code, cases[i].code);
        tram_future *future = NULL;
        assert_int_equal(
            tram_loop_create_server(world->loop, host_factory, &new_name, NULL, NULL, &cases[i].options, &future),
            cases[i].code);
    }
    const tram_server_options both = {.sockets = fds, .socket_count = 1};
    assert_int_equal(tram_runtime_create_server(runtime, host_factory, &new_name, NULL, "0", &both, NULL, NULL),
                     TRAM_EVALUE);
    assert_true(is_open(fds[0]));
    close(fds[0]), close(datagram), close(none);
    tram_runtime_free(runtime);
}

static void test_V_45_several_sockets_of_one_loop(void **state) {
    struct world *world = *state;
    int fds[3];
    uint16_t ports[3];
    listeners(fds, 3, false);
    for (size_t i = 0; i < 3; i++)
        ports[i] = port_of_fd(fds[i]);
    const tram_server_options options = {.sockets = fds, .socket_count = 3};
    tram_future *future;
    void *server;
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, NULL, NULL, &options, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    assert_int_equal(tram_server_sockets(server, NULL, 0), 3);
    for (size_t i = 0; i < 3; i++) {
        int fd = tcp_connect(ports[i]);
        run_until_traced(world, "made");
        close(fd);
        run_until_traced(world, "released");
        world->trace[0] = '\0';
    }
    assert_int_equal(tram_server_close(server), 0);
    tram_server_release(server);
}

static void test_V_45_U_5_a_unix_socket_with_its_file(void **state) {
    for (int keep = 0; keep < 2; keep++) {
        const char *path = in_folder("given");
        tram_socket_address address;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(tram_socket_address_unix(path, strlen(path), &address), 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address.address, address.size), 0);
        tram_runtime *runtime = runtime_new(*state, 2);
        const tram_unix_server_options options = {.sock = &fd, .keep_socket_file = keep};
        assert_int_equal(
            tram_runtime_create_unix_server(runtime, host_factory, &new_name, path, strlen(path), &options, NULL, NULL),
            TRAM_EVALUE);
        serve_path(runtime, &new_name, NULL, &options);
        assert_false(is_open(fd));
        assert_int_equal(tram_runtime_start(runtime), 0);
        for (int i = 0; i < 10; i++)
            assert_greeted(unix_connect(path), 'n');
        tram_runtime_free(runtime);
        assert_int_equal(exists(path), keep);
        unlink(path);
    }
}

/* A server that never ran has its file to remove as well; but not one that stands there meanwhile. */
static void test_U_5_the_file_of_a_given_socket_goes_with_it(void **state) {
    enum { REMOVED, KEPT, REPLACED, VARIANTS };
    for (int variant = 0; variant < VARIANTS; variant++) {
        const char *path = in_folder("given");
        tram_socket_address address;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(tram_socket_address_unix(path, strlen(path), &address), 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address.address, address.size), 0);
        tram_runtime *runtime = runtime_new(*state, 2);
        const tram_unix_server_options options = {.sock = &fd, .keep_socket_file = variant == KEPT};
        serve_path(runtime, &new_name, NULL, &options);
        if (variant == REPLACED) {
            int file = unlink(path) ? -1 : open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
            assert_true(file >= 0);
            close(file);
        }
        tram_runtime_free(runtime);
        assert_int_equal(exists(path), variant != REMOVED);
        unlink(path);
    }
}

/* What fails has taken nothing: neither the socket nor its file. */
static void test_U_5_a_call_that_fails_leaves_socket_and_file(void **state) {
    struct world *world = *state;
    const char *path = in_folder("given");
    tram_socket_address address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(tram_socket_address_unix(path, strlen(path), &address), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address.address, address.size), 0);
    const tram_unix_server_options options = {.sock = &fd}, negative = {.sock = &fd, .backlog = -1};
    tram_runtime *runtime = runtime_new(world, 2);
    tram_future *future;
    assert_int_equal(tram_runtime_create_unix_server(runtime, host_factory, &new_name, NULL, 0, &negative, NULL, NULL),
                     TRAM_EVALUE);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_create_unix_server(runtime, host_factory, &new_name, NULL, 0, &options, NULL, NULL),
                     TRAM_ESTATE);
    tram_runtime_free(runtime);
    assert_int_equal(tram_loop_create_unix_server(world->loop, host_factory, &new_name, NULL, 0, &negative, &future),
                     TRAM_EVALUE);
    for (size_t allocations = 0;; allocations++) { /* also for want of memory, as long as the call says so */
        world->fail_after = allocations;
        int status = tram_loop_create_unix_server(world->loop, host_factory, &new_name, NULL, 0, &options, &future);
        world->fail_after = SIZE_MAX;
        if (!status)
            break;
        assert_int_equal(status, -ENOMEM);
        assert_true(is_open(fd));
        assert_true(exists(path));
    }
    /* It has begun, and is the server's: what happens to it now happens to the file. */
    int result = tram_loop_run_until_complete(world->loop, future);
    void *server;
    if (!result && !tram_future_result(future, &server)) {
        tram_server_close(server);
        tram_server_release(server);
    }
    tram_future_release(future);
    assert_false(is_open(fd));
    assert_false(exists(path));
}

/* ---- Socket activation ---- */

struct activation {
    const char *pid; /* NULL: ours */
    const char *fds;
    const char *names;
    int code;
    size_t room;
};

/* In a child, whose descriptors from 3 on are two listeners, a pipe's end, and nothing. Returns 0, or a line. */
static int activate(const struct activation *activation) {
    int fds[2], ends[2];
    char pid[16];
    listeners(fds, 2, false);
    if (pipe(ends) < 0)
        return __LINE__;
    uint16_t ports[] = {port_of_fd(fds[0]), port_of_fd(fds[1])};
    int sources[] = {fcntl(fds[0], F_DUPFD, 100), fcntl(fds[1], F_DUPFD, 100), fcntl(ends[0], F_DUPFD, 100)};
    for (int i = 0; i < 3; i++)
        dup2(sources[i], 3 + i);
    close(6);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    unsetenv("LISTEN_PID"), unsetenv("LISTEN_FDS"), unsetenv("LISTEN_FDNAMES");
    setenv("LISTEN_PID", activation->pid ? activation->pid : pid, 1);
    if (activation->fds)
        setenv("LISTEN_FDS", activation->fds, 1);
    if (activation->names)
        setenv("LISTEN_FDNAMES", activation->names, 1);
    static tram_listener found[8];
    if (tram_listeners_activated(found, activation->room, false) != activation->code)
        return __LINE__;
    if (!getenv("LISTEN_PID"))
        return __LINE__;
    if (tram_listeners_activated(found, activation->room, true) != activation->code)
        return __LINE__;
    if (getenv("LISTEN_PID") || getenv("LISTEN_FDS") || getenv("LISTEN_FDNAMES"))
        return __LINE__;
    if (tram_listeners_activated(found, activation->room, true) != 0)
        return __LINE__;
    for (int i = 0; i < activation->code; i++) {
        if (found[i].fd != 3 + i || port_of(&found[i].address) != ports[i])
            return __LINE__;
        if (!(fcntl(3 + i, F_GETFD) & FD_CLOEXEC))
            return __LINE__;
        const char *names = activation->names ? activation->names : "unknown:unknown";
        const char *name = i ? strchr(names, ':') + 1 : names;
        if (strlen(found[i].name) != strcspn(name, ":") || strncmp(found[i].name, name, strlen(found[i].name)) != 0)
            return __LINE__;
    }
    return 0;
}

static void test_V_46_sockets_of_systemd(void **state) {
    (void)state;
    char longest_name[TRAM_LISTENER_NAME_SIZE], too_long_name[TRAM_LISTENER_NAME_SIZE + 1];
    snprintf(longest_name, sizeof longest_name, "%0*d", TRAM_LISTENER_NAME_SIZE - 1, 1);
    snprintf(too_long_name, sizeof too_long_name, "%0*d", TRAM_LISTENER_NAME_SIZE, 1);
    const struct activation cases[] = {
        {NULL, "2", NULL, 2, 8},
        {NULL, "2", "one:", 2, 8},
        {NULL, "1", "one", 1, 1},
        {"1", "2", NULL, 0, 8}, /* for somebody else */
        {NULL, NULL, NULL, 0, 8},
        {NULL, "2", NULL, TRAM_ELIMIT, 1},
        {NULL, "3", NULL, TRAM_ETYPE, 8},
        {NULL, "4", NULL, -EBADF, 8},
        {NULL, "2", "one", TRAM_EVALUE, 8},
        {NULL, "2", "one:two:three", TRAM_EVALUE, 8},
        {NULL, "1", longest_name, 1, 8},
        {NULL, "1", too_long_name, TRAM_EVALUE, 8},
        {NULL, "0", NULL, TRAM_EVALUE, 8},
        {NULL, "-1", NULL, TRAM_EVALUE, 8},
        {NULL, "two", NULL, TRAM_EVALUE, 8},
        {NULL, "2147483644", NULL, -EBADF, 8}, /* the last would be INT_MAX - 1 + 3 */
        {NULL, "2147483645", NULL, TRAM_EVALUE, 8},
        {NULL, "99999999999999999999", NULL, TRAM_EVALUE, 8},
        {"", "2", NULL, TRAM_EVALUE, 8},
        {"1x", "2", NULL, TRAM_EVALUE, 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pid_t child = fork();
        int status;
        if (child == 0) {
            int line = activate(&cases[i]);
            if (line)
                fprintf(stderr, "%s:%d: case %zu\n", __FILE__, line, i);
            _exit(line != 0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

/* ---- From the process before ---- */

/* An old process, as far as it matters: a runtime with servers that are offered. */
struct old {
    tram_runtime *runtime;
    tram_runtime_server *servers[2];
    tram_offer *offer;
    const char *path;
    _Atomic unsigned taken, discarded;
};

static void taken(tram_runtime *runtime, void *arg) {
    struct old *old = arg;
    old->taken += (unsigned)(tram_loop_running() == tram_runtime_loop(runtime, 0));
}

static void discard(void *arg) {
    ((struct old *)arg)->discarded++;
}

static void offer(struct old *old, const tram_offer_options *options) {
    const tram_offered offered[] = {{.name = "tcp", .server = old->servers[0]},
                                    {.name = "unix", .server = old->servers[1]}};
    tram_error error = {0};
    old->path = in_folder("offer");
    int status = tram_runtime_offer_listeners(old->runtime, old->path, strlen(old->path), offered,
                                              old->servers[1] ? 2 : 1, options, &old->offer, &error);
    if (status)
        fail_msg("offer: %s: %s", tram_error_name(status), error.detail ? error.detail : "");
}

/* `offer_options` NULL: with `taken`. */
static void old_begin(struct old *old, struct world *world, unsigned workers, const tram_server_options *options,
                      const tram_offer_options *offer_options) {
    const tram_offer_options defaults = {.taken = taken, .arg = old};
    *old = (struct old){.runtime = runtime_new(world, workers)};
    old->servers[0] = serve(old->runtime, &old_name, options);
    assert_int_equal(tram_runtime_start(old->runtime), 0);
    offer(old, offer_options ? offer_options : &defaults);
}

static uint16_t old_port(const struct old *old) {
    tram_socket_address address;
    assert_int_equal(tram_runtime_server_sockname(old->servers[0], 0, &address), 0);
    return port_of(&address);
}

static void await(const _Atomic unsigned *count, unsigned wanted) {
    for (int i = 0; *count != wanted; i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
    }
}

static int inherit(const struct old *old, tram_listener *found, size_t room, int *ret_link) {
    return tram_listeners_inherit(old->path, strlen(old->path), NULL, found, room, ret_link);
}

/* Offers and hand-overs one by one are slow to look at from outside: what is left open is looked at in the end. */
static void assert_still_offered(const struct old *old, int count) {
    tram_listener found[8];
    int link;
    for (int i = 0; i < 2; i++) {
        int got = inherit(old, found, 8, &link);
        if (got == -EBUSY) { /* the one before has just gone */
            poll(NULL, 0, 1);
            i--;
            continue;
        }
        assert_int_equal(got, count);
        tram_listeners_close(found, (size_t)count);
        close(link);
    }
    assert_greeted(tcp_connect(old_port(old)), 'o');
    assert_int_equal(old->taken, 0);
}

static void test_V_47_from_one_to_the_next(void **state) {
    struct world *world = *state;
    const tram_server_options plain = {0};
    const char *path = in_folder("server");
    struct old old = {.runtime = runtime_new(world, 2)};
    const tram_offer_options options = {.taken = taken, .arg = &old};
    old.servers[0] = serve(old.runtime, &old_name, &plain);
    old.servers[1] = serve_path(old.runtime, &old_name, path, NULL);
    offer(&old, &options); /* before the workers start */
    assert_int_equal(tram_runtime_start(old.runtime), 0);
    uint16_t port = old_port(&old);

    tram_listener found[8];
    int link, sockets[8], unix_sockets[8];
    int count = inherit(&old, found, 8, &link);
    assert_int_equal(count, 3); /* one per worker, and the one that they share */
    for (int i = 0; i < count; i++) {
        assert_string_equal(found[i].name, i < 2 ? "tcp" : "unix");
        assert_true(fcntl(found[i].fd, F_GETFD) & FD_CLOEXEC);
        if (i < 2)
            assert_int_equal(port_of(&found[i].address), port);
    }
    assert_greeted(tcp_connect(port), 'o'); /* nothing has happened yet */
    tram_server_options given = {.sockets = sockets};
    given.socket_count = tram_listeners_take(found, 3, "tcp", sockets);
    assert_int_equal(given.socket_count, 2);
    assert_int_equal(tram_listeners_take(found, 3, "other", unix_sockets), 0);
    assert_int_equal(tram_listeners_take(found, 3, NULL, unix_sockets), 1);
    tram_listeners_close(found, 3); /* nothing is left of them */
    tram_runtime *runtime = runtime_new(world, 3);
    serve(runtime, &new_name, &given);
    const tram_unix_server_options given_unix = {.sock = unix_sockets};
    serve_path(runtime, &new_name, NULL, &given_unix);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_listeners_ready(link, 0), 0);
    assert_false(exists(old.path));
    await(&old.taken, 1);
    assert_int_equal(tram_runtime_server_drain(old.servers[0], TRAM_FOREVER), 0);
    assert_int_equal(tram_runtime_server_drain(old.servers[1], TRAM_FOREVER), 0);
    for (int i = 0; i < 20; i++) {
        assert_greeted(tcp_connect(port), 'n');
        assert_greeted(unix_connect(path), 'n');
    }
    tram_runtime_free(old.runtime);
    assert_true(exists(path)); /* it is the new one's now */
    assert_greeted(unix_connect(path), 'n');
    tram_runtime_free(runtime);
    assert_false(exists(path));
}

/* Where a worker waits until it is let go. */
struct gate {
    pthread_mutex_t mutex;
    _Atomic unsigned waiting;
};

static int wait_at_gate(tram_loop *loop, void *arg) {
    (void)loop;
    struct gate *gate = arg;
    gate->waiting = 1;
    pthread_mutex_lock(&gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
    return 0;
}

/*
 * The old process has not accepted them when the new one is ready: they are the new one's. It has had no descriptors,
 * so its listener pauses, and finds some only when it closes.
 */
static void test_V_47_V_17_the_queue_goes_along(void **state) {
    struct world *world = *state;
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    tram_runtime_options options = {.workers = 2, .loop = {.faults = faults}};
    const tram_server_options fixed = {.shard = TRAM_SHARD_FIXED, .shard_worker = 1};
    struct old old = {0};
    struct gate gate = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    const tram_offer_options offer_options = {.taken = taken, .arg = &old};
    assert_int_equal(tram_runtime_new(&options, &old.runtime), 0);
    old.servers[0] = serve(old.runtime, &old_name, &fixed);
    assert_int_equal(tram_runtime_start(old.runtime), 0);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_ACCEPT4, 1, TRAM_FAULT_ALWAYS, EMFILE), 0);
    int fds[20], link, sockets[1];
    for (size_t i = 0; i < 20; i++)
        fds[i] = tcp_connect(old_port(&old));
    tram_stats stats = {0};
    for (int i = 0; !stats.accept_pauses; i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
        assert_int_equal(tram_runtime_stats(old.runtime, 1, &stats), 0);
    }
    pthread_mutex_lock(&gate.mutex);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(old.runtime, 1), wait_at_gate, &gate, NULL), 0);
    await(&gate.waiting, 1);
    tram_faults_reset(faults);
    offer(&old, &offer_options);
    tram_listener found[1];
    assert_int_equal(inherit(&old, found, 1, &link), 1);
    assert_int_equal(tram_listeners_take(found, 1, NULL, sockets), 1);
    assert_int_equal(tram_listeners_ready(link, 0), 0);
    await(&old.taken, 1);
    pthread_mutex_unlock(&gate.mutex);
    assert_int_equal(tram_runtime_server_drain(old.servers[0], TRAM_FOREVER), 0);
    tram_runtime_free(old.runtime);
    tram_faults_free(faults);
    tram_runtime *runtime = runtime_new(world, 2);
    const tram_server_options given = {.sockets = sockets, .socket_count = 1};
    serve(runtime, &new_name, &given);
    assert_int_equal(tram_runtime_start(runtime), 0);
    for (size_t i = 0; i < 20; i++)
        assert_greeted(fds[i], 'n');
    tram_runtime_free(runtime);
}

static void test_X_12_an_offers_argument_comes_back_when_it_is_freed(void **state) {
    struct world *world = *state;
    struct old old;
    const tram_server_options plain = {0};
    const tram_offer_options options = {.taken = taken, .arg = &old, .discard = discard};
    old_begin(&old, world, 2, &plain, &options);
    const tram_offered nameless = {.server = old.servers[0]};
    assert_int_equal(tram_runtime_offer_listeners(old.runtime, "\0x", 2, &nameless, 1, &options, NULL, NULL),
                     TRAM_EVALUE);
    const tram_offered named = {.name = "tcp", .server = old.servers[0]};
    const char *nowhere = in_folder("no/folder");
    assert_int_equal(
        tram_runtime_offer_listeners(old.runtime, nowhere, strlen(nowhere), &named, 1, &options, NULL, NULL),
        -ENOENT); /* the argument stays the caller's */
    assert_int_equal(tram_offer_close(old.offer), 0);
    assert_int_equal(tram_offer_release(old.offer), 0);
    await(&old.discarded, 1);
    offer(&old, &options);
    tram_listener found[8];
    int link, count = inherit(&old, found, 8, &link);
    assert_int_equal(count, 2);
    assert_int_equal(tram_listeners_ready(link, 0), 0);
    tram_listeners_close(found, (size_t)count);
    await(&old.taken, 1);
    assert_int_equal(old.discarded, 1);
    tram_runtime_free(old.runtime);
    assert_int_equal(old.discarded, 2);
    assert_int_equal(old.taken, 1);
}

/* What a server that was closed had open, may be somebody else's by now. */
static void test_V_47_a_server_that_was_closed_gives_nothing(void **state) {
    struct world *world = *state;
    const tram_server_options plain = {0};
    const char *path = in_folder("server");
    struct old old = {.runtime = runtime_new(world, 2)};
    old.servers[0] = serve(old.runtime, &old_name, &plain);
    old.servers[1] = serve_path(old.runtime, &old_name, path, NULL);
    offer(&old, &(tram_offer_options){.taken = taken, .arg = &old});
    assert_int_equal(tram_runtime_start(old.runtime), 0);
    assert_int_equal(tram_runtime_server_close(old.servers[0]), 0);
    assert_int_equal(tram_runtime_server_drain(old.servers[0], TRAM_FOREVER), 0);
    int others[4];
    listeners(others, 4, true);

    tram_listener found[8];
    int link;
    assert_int_equal(inherit(&old, found, 8, &link), 1);
    assert_string_equal(found[0].name, "unix");
    tram_listeners_close(found, 1);
    close(link);
    for (int i = 0; i < 4; i++)
        close(others[i]);
    tram_runtime_free(old.runtime);
}

static void test_V_47_each_socket_once_and_the_runtime_stops(void **state) {
    const tram_server_options shared = {.shard = TRAM_SHARD_SHARED};
    const tram_offer_options defaults = {0};
    struct old old;
    old_begin(&old, *state, 3, &shared, &defaults);
    tram_listener found[3];
    int link;
    assert_int_equal(inherit(&old, found, 3, &link), 1);
    tram_listeners_close(found, 1);
    assert_int_equal(tram_listeners_ready(link, 0), 0);
    assert_int_equal(tram_runtime_join(old.runtime), 0);
    tram_runtime_free(old.runtime);
}

/* More than go into one message, or than the kernel queues at once. */
static void test_V_47_many_sockets(void **state) {
    enum { MANY = 300 };
    static int fds[MANY];
    static tram_listener found[MANY];
    struct old old;
    listeners(fds, MANY, true);
    const tram_server_options options = {.sockets = fds, .socket_count = MANY};
    old_begin(&old, *state, 2, &options, NULL);
    int link;
    assert_int_equal(inherit(&old, found, MANY, &link), MANY);
    tram_listeners_close(found, MANY);
    close(link);
    assert_int_equal(inherit(&old, found, MANY - 1, &link), TRAM_ELIMIT);
    tram_runtime_free(old.runtime);
}

/* ---- Hand-overs that break off ---- */

static int raw_link(const struct old *old) {
    tram_socket_address address;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); /* as tram_listeners_inherit() */
    assert_int_equal(tram_socket_address_unix(old->path, strlen(old->path), &address), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address.address, address.size), 0);
    return fd;
}

/* The old process has let go of the link. */
static void await_hang_up(int link) {
    struct pollfd wanted = {.fd = link, .events = 0};
    assert_int_equal(poll(&wanted, 1, 20000), 1);
}

static void test_V_48_who_breaks_off_has_changed_nothing(void **state) {
    const tram_server_options plain = {0};
    struct old old;
    old_begin(&old, *state, 2, &plain, NULL);
    tram_listener found[8];
    int link;
    /* It has them all, and gives up, or dies. */
    assert_int_equal(inherit(&old, found, 8, &link), 2);
    tram_listeners_close(found, 2);
    close(link);
    assert_still_offered(&old, 2);
    /* It asks for nothing. */
    close(raw_link(&old));
    assert_still_offered(&old, 2);
    /* It talks nonsense: too short, too long, with descriptors, empty. */
    static const char nonsense[1000] = "nonsense";
    const size_t sizes[] = {1, 272, 1000};
    for (size_t i = 0; i < 3; i++) {
        link = raw_link(&old);
        assert_int_equal(send(link, nonsense, sizes[i], MSG_NOSIGNAL), sizes[i]);
        await_hang_up(link);
        close(link);
        assert_still_offered(&old, 2);
    }
    link = raw_link(&old);
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec piece = {.iov_base = (void *)(uintptr_t)nonsense, .iov_len = 272};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.header), &link, sizeof link);
    assert_int_equal(sendmsg(link, &message, MSG_NOSIGNAL), 272);
    await_hang_up(link);
    close(link);
    assert_still_offered(&old, 2);
    /* Ready before it asked. */
    assert_int_equal(tram_listeners_ready(raw_link(&old), 0), -EPROTO);
    assert_still_offered(&old, 2);
    tram_runtime_free(old.runtime);
}

static void test_V_48_who_goes_is_told_apart_from_who_talks_nonsense(void **state) {
    const tram_server_options plain = {0};
    struct old old;
    old_begin(&old, *state, 2, &plain, NULL);
    gone = nonsensical = 0;
    close(raw_link(&old));
    await(&gone, 1);
    assert_int_equal(nonsensical, 0);
    int link = raw_link(&old);
    assert_int_equal(send(link, "hello", 5, MSG_NOSIGNAL), 5);
    await(&nonsensical, 1);
    assert_int_equal(gone, 1);
    close(link);
    tram_runtime_free(old.runtime);
}

static void test_V_48_one_at_a_time(void **state) {
    const tram_server_options plain = {0};
    struct old old;
    old_begin(&old, *state, 2, &plain, NULL);
    tram_listener found[8], others[8];
    int link, other;
    assert_int_equal(inherit(&old, found, 8, &link), 2);
    assert_int_equal(inherit(&old, others, 8, &other), -EBUSY);
    close(link);
    tram_listeners_close(found, 2);
    assert_still_offered(&old, 2);
    tram_runtime_free(old.runtime);
}

static void test_V_48_who_stalls_is_turned_away(void **state) {
    const tram_server_options plain = {0};
    struct old old;
    const tram_offer_options options = {.timeout_ns = 20000000, .taken = taken, .arg = &old};
    old_begin(&old, *state, 2, &plain, &options);
    int silent = raw_link(&old);
    await_hang_up(silent);
    close(silent);
    tram_listener found[8];
    int link;
    int count = inherit(&old, found, 8, &link);
    if (count == 2) {
        tram_listeners_close(found, 2);
        await_hang_up(link);
        count = tram_listeners_ready(link, 0);
    } /* else this machine is so busy that asking alone took too long */
    assert_int_equal(count, TRAM_ETIMEOUT);
    assert_int_equal(old.taken, 0);
    assert_greeted(tcp_connect(old_port(&old)), 'o');
    tram_runtime_free(old.runtime);
}

/* Whatever fails in the old process: the new one gets all or an error, and the old one can go on. */
static void test_V_48_any_failure_of_the_old_process(void **state) {
    (void)state;
    static const struct {
        tram_fault_kind kind;
        int error;
        bool harmless;
    } faulty[] = {
        {TRAM_FAULT_ALLOCATE, ENOMEM, false},   {TRAM_FAULT_FCNTL, EMFILE, false},
        {TRAM_FAULT_GETSOCKOPT, EINVAL, false}, {TRAM_FAULT_SENDMSG, EAGAIN, true},
        {TRAM_FAULT_SENDMSG, EINTR, true},      {TRAM_FAULT_SENDMSG, ETOOMANYREFS, false},
        {TRAM_FAULT_RECV, EINTR, true},         {TRAM_FAULT_RECV, ECONNRESET, false},
        {TRAM_FAULT_EPOLL_CTL, ENOMEM, false},  {TRAM_FAULT_ACCEPT4, ECONNABORTED, true},
        {TRAM_FAULT_SOCKET, EMFILE, false},     {TRAM_FAULT_BIND, EACCES, false},
        {TRAM_FAULT_LISTEN, EINVAL, false},
    };
    const tram_server_options plain = {0};
    unsigned whole = 0, failed = 0;
    for (size_t i = 0; i < sizeof faulty / sizeof *faulty * 4; i++) {
        tram_faults *faults;
        assert_int_equal(tram_faults_new(NULL, &faults), 0);
        tram_runtime_options options = {.workers = 2, .loop = {.faults = faults}};
        struct old old = {.path = in_folder("offer")};
        const tram_offer_options offer_options = {.taken = taken, .arg = &old};
        assert_int_equal(tram_runtime_new(&options, &old.runtime), 0);
        old.servers[0] = serve(old.runtime, &old_name, &plain);
        assert_int_equal(tram_runtime_start(old.runtime), 0);
        const tram_offered offered = {.name = "tcp", .server = old.servers[0]};
        tram_faults_fail(faults, faulty[i / 4].kind, 1 + i % 4, 1, faulty[i / 4].error);
        int link, count = tram_runtime_offer_listeners(old.runtime, old.path, strlen(old.path), &offered, 1,
                                                       &offer_options, NULL, NULL);
        tram_listener found[8];
        if (!count)
            count = inherit(&old, found, 8, &link);
        tram_faults_reset(faults);
        assert_true(count == 2 || (count < 0 && !faulty[i / 4].harmless));
        /* What cannot be waited for is ended instead: the link, or the offer, and with it the path. */
        bool ended = count == TRAM_EINCOMPLETE || count == -ENOENT || count == -ECONNREFUSED;
        assert_true(count == 2 || count == -faulty[i / 4].error ||
                    (faulty[i / 4].kind == TRAM_FAULT_EPOLL_CTL && ended));
        if (count < 0) {
            failed++;
            offer(&old, &offer_options);
            while ((count = inherit(&old, found, 8, &link)) == -EBUSY)
                poll(NULL, 0, 1);
            assert_int_equal(count, 2);
        } else {
            whole++;
        }
        tram_listeners_close(found, 2);
        assert_greeted(tcp_connect(old_port(&old)), 'o');
        assert_int_equal(old.taken, 0);
        assert_int_equal(tram_listeners_ready(link, 0), 0);
        await(&old.taken, 1);
        tram_runtime_free(old.runtime);
        assert_false(exists(old.path));
        size_t blocks;
        tram_faults_memory(faults, &blocks, NULL);
        assert_int_equal(blocks, 0);
        tram_faults_free(faults);
    }
    print_message("%u hand-overs went well, %u failed\n", whole, failed);
    assert_true(whole > 0 && failed > 0);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Without descriptors nobody is asked again at once, but after a while. */
static void test_V_48_V_11_a_successor_waits_for_descriptors(void **state) {
    (void)state;
    const tram_server_options plain = {0};
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    tram_runtime_options options = {.workers = 1, .loop = {.faults = faults}};
    struct old old = {.path = in_folder("offer")};
    const tram_offer_options offer_options = {.taken = taken, .arg = &old};
    assert_int_equal(tram_runtime_new(&options, &old.runtime), 0);
    old.servers[0] = serve(old.runtime, &old_name, &plain);
    assert_int_equal(tram_runtime_start(old.runtime), 0);
    offer(&old, &offer_options);
    assert_still_offered(&old, 1);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_ACCEPT4, 1, 1, EMFILE), 0);
    uint64_t begin = now_ns();
    tram_listener found[8];
    int link;
    assert_int_equal(inherit(&old, found, 8, &link), 1);
    assert_true(now_ns() - begin >= TRAM_ACCEPT_RETRY_NS);
    tram_faults_reset(faults);
    tram_listeners_close(found, 1);
    assert_int_equal(tram_listeners_ready(link, 0), 0);
    await(&old.taken, 1);
    tram_runtime_free(old.runtime);
    tram_faults_free(faults);
}

static int nothing(tram_loop *loop, void *arg, void **ret_value) {
    (void)loop;
    (void)arg;
    (void)ret_value;
    return 0;
}

/* What has come by now is dealt with. */
static void await_turns(struct world *world, tram_runtime *runtime) {
    for (int i = 0; i < 3; i++) {
        tram_future *future;
        assert_int_equal(tram_runtime_each(runtime, world->loop, nothing, NULL, NULL, &future), 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
        tram_future_release(future);
    }
}

/* Nor is it given up where watching again fails as well: after another while. */
static void test_V_48_V_11_an_offer_that_cannot_be_watched_tries_again(void **state) {
    const tram_server_options plain = {0};
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    tram_runtime_options options = {.workers = 1, .loop = {.faults = faults}};
    struct old old = {.path = in_folder("offer")};
    const tram_offer_options offer_options = {.taken = taken, .arg = &old};
    assert_int_equal(tram_runtime_new(&options, &old.runtime), 0);
    old.servers[0] = serve(old.runtime, &old_name, &plain);
    assert_int_equal(tram_runtime_start(old.runtime), 0);
    offer(&old, &offer_options);
    assert_still_offered(&old, 1);
    await_turns(*state, old.runtime);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_ACCEPT4, 1, 1, EMFILE), 0);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_EPOLL_CTL, 2, 1, ENOMEM), 0); /* the first one pauses */
    uint64_t begin = now_ns();
    tram_listener found[8];
    int link;
    assert_int_equal(inherit(&old, found, 8, &link), 1);
    assert_true(now_ns() - begin >= 2 * TRAM_ACCEPT_RETRY_NS);
    assert_int_equal(tram_faults_injected(faults), 2);
    tram_faults_reset(faults);
    tram_listeners_close(found, 1);
    close(link);
    tram_runtime_free(old.runtime);
    tram_faults_free(faults);
}

/* Whoever died after it was asked does not accept any more. */
static void test_V_48_ready_when_the_old_one_is_gone(void **state) {
    const tram_server_options plain = {0};
    struct old old;
    old_begin(&old, *state, 2, &plain, NULL);
    tram_listener found[8];
    int link;
    assert_int_equal(inherit(&old, found, 8, &link), 2);
    tram_runtime_free(old.runtime);
    assert_int_equal(tram_listeners_ready(link, 0), 0);
    tram_listeners_close(found, 2);
}

/* As another user, in a child: the code that asking gives. */
static int ask_as_nobody(const struct old *old) {
    pid_t child = fork();
    int status;
    if (child == 0) {
        static tram_listener found[8];
        int link;
        _exit(setuid(65534) < 0 ? 100 : inherit(old, found, 8, &link) < 0 ? 1 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_V_48_other_users_are_refused(void **state) {
    if (geteuid() != 0)
        skip();
    const tram_server_options plain = {0};
    struct old old;
    assert_int_equal(chmod(folder, 0755), 0);
    for (int way = 0; way < 3; way++) {
        const tram_offer_options options = {
            .mode = way > 0 ? 0666 : 0, .any_user = way > 1, .taken = taken, .arg = &old};
        mode_t mask = umask(0);
        old_begin(&old, *state, 2, &plain, &options);
        umask(mask);
        struct stat found;
        assert_int_equal(stat(old.path, &found), 0);
        assert_int_equal(found.st_mode & 0777, way > 0 ? 0666 : 0600);
        assert_int_equal(ask_as_nobody(&old), way < 2);
        assert_still_offered(&old, 2);
        tram_runtime_free(old.runtime);
    }
}

/* ---- The end of an offer ---- */

static void test_V_50_the_path_goes_with_the_offer(void **state) {
    const tram_server_options plain = {0};
    struct old old;
    tram_listener found[8];
    int link;
    /* Closed; while somebody is taking over, who is told so. */
    old_begin(&old, *state, 2, &plain, NULL);
    assert_true(exists(old.path));
    assert_int_equal(inherit(&old, found, 8, &link), 2);
    assert_int_equal(tram_offer_close(old.offer), 0);
    await_hang_up(link);
    assert_int_equal(tram_listeners_ready(link, 0), TRAM_ECANCELLED);
    tram_listeners_close(found, 2);
    for (int i = 0; exists(old.path); i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
    }
    assert_int_equal(inherit(&old, found, 8, &link), -ENOENT);
    assert_greeted(tcp_connect(old_port(&old)), 'o');
    assert_int_equal(tram_offer_close(old.offer), 0); /* again, and when all is over */
    /* Another one, ended by the end of the runtime. */
    offer(&old, NULL);
    assert_still_offered(&old, 2);
    tram_runtime_stop(old.runtime);
    assert_int_equal(tram_runtime_join(old.runtime), 0);
    assert_false(exists(old.path));
    assert_int_equal(tram_offer_close(old.offer), 0);
    tram_runtime_free(old.runtime);
    /* Never begun. A file that is there is replaced, and one that replaced ours stays. */
    old = (struct old){.runtime = runtime_new(*state, 1)};
    old.servers[0] = serve(old.runtime, &old_name, &plain);
    offer(&old, NULL);
    tram_offer *first = old.offer;
    offer(&old, NULL);
    assert_ptr_not_equal(first, old.offer);
    assert_int_equal(tram_offer_close(first), 0);
    assert_int_equal(tram_runtime_start(old.runtime), 0);
    assert_still_offered(&old, 1);
    assert_true(exists(old.path));
    tram_runtime_free(old.runtime);
    assert_false(exists(old.path));
    old = (struct old){.runtime = runtime_new(*state, 1)};
    old.servers[0] = serve(old.runtime, &old_name, &plain);
    offer(&old, NULL);
    tram_runtime_free(old.runtime);
    assert_false(exists(old.path));
}

/* Whether the offer was descriptor 0. */
static bool offered_as_0(struct world *world, bool started) {
    const tram_server_options plain = {0};
    struct old old = {.runtime = runtime_new(world, 1)};
    int zero = open("/dev/null", O_RDONLY | O_CLOEXEC); /* so that no other socket is it */
    assert_int_equal(zero, 0);
    old.servers[0] = serve(old.runtime, &old_name, &plain);
    assert_int_equal(started ? tram_runtime_start(old.runtime) : 0, 0);
    close(zero);
    offer(&old, NULL);
    bool is_0 = is_open(0);
    if (started) {
        assert_still_offered(&old, 1);
        assert_int_equal(tram_offer_release(old.offer), 0);
        for (int i = 0; exists(old.path); i++) {
            assert_true(i < 20000);
            poll(NULL, 0, 1);
        }
    }
    tram_runtime_free(old.runtime);
    assert_false(is_open(0));
    assert_false(exists(old.path));
    return is_0;
}

/* As any descriptor, in a process that has closed its standard input. */
static void test_V_50_an_offer_may_be_descriptor_0(void **state) {
    for (int started = 0; started < 2; started++) {
        bool is_0 = false;
        for (int i = 0; i < 3 && !is_0; i++) /* support/sys.c may spare the first two */
            is_0 = offered_as_0(*state, started);
        assert_true(is_0);
    }
}

static void test_V_50_nobody_offers(void **state) {
    (void)state;
    tram_listener found[1];
    int link;
    const char *path = in_folder("nobody");
    assert_int_equal(tram_listeners_inherit(path, strlen(path), NULL, found, 1, &link), -ENOENT);
    assert_int_equal(tram_listeners_inherit(path, strlen(path), NULL, found, INT_MAX, &link), -ENOENT);
    assert_wrong(tram_listeners_inherit(path, strlen(path), NULL, found, (size_t)INT_MAX + 1, &link), "capacity");
    tram_inherit_options used = {.reserved = {1}};
    assert_wrong(tram_listeners_inherit(path, strlen(path), &used, found, INT_MAX, &link), "reserved");
    assert_int_equal(tram_listeners_inherit(path, 0, NULL, found, 1, &link), TRAM_EVALUE);
    assert_int_equal(tram_listeners_inherit("\0tram-nobody", 12, NULL, found, 1, &link), -ECONNREFUSED);
    tram_socket_address address;
    assert_int_equal(tram_socket_address_unix(path, strlen(path), &address), 0);
    for (int type = SOCK_STREAM; type <= SOCK_SEQPACKET; type += SOCK_SEQPACKET - SOCK_STREAM) {
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address.address, address.size), 0);
        if (type == SOCK_STREAM)
            assert_int_equal(listen(fd, 1), 0);
        assert_int_equal(tram_listeners_inherit(path, strlen(path), NULL, found, 1, &link),
                         type == SOCK_STREAM ? -EPROTO : -ECONNREFUSED);
        close(fd);
        unlink(path);
    }
}

static void test_V_50_bad_offers(void **state) {
    const tram_server_options plain = {0};
    tram_runtime *runtime = runtime_new(*state, 1), *other = runtime_new(*state, 1);
    tram_runtime_server *server = serve(runtime, &old_name, &plain), *foreign = serve(other, &old_name, &plain);
    char long_name[300];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    const struct {
        const char *path;
        tram_offered offered;
        size_t count;
        tram_offer_options options;
        int code;
    } cases[] = {
        {"offer", {.name = "name", .server = server}, 0, {0}, TRAM_EVALUE},
        {"offer", {.name = "name", .server = NULL}, 1, {0}, TRAM_EVALUE},
        {"offer", {.name = NULL, .server = server}, 1, {0}, TRAM_EVALUE},
        {"offer", {.name = "", .server = server}, 1, {0}, TRAM_EVALUE},
        {"offer", {.name = long_name, .server = server}, 1, {0}, TRAM_EVALUE},
        {"offer", {.name = "name", .server = foreign}, 1, {0}, TRAM_EVALUE},
        {"offer", {.name = "name", .server = server}, 1, {.reserved = {1}}, TRAM_EVALUE},
        {"none/offer", {.name = "name", .server = server}, 1, {0}, -ENOENT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = in_folder(cases[i].path);
        tram_error error = {0};
        assert_int_equal(tram_runtime_offer_listeners(runtime, path, strlen(path), &cases[i].offered, cases[i].count,
                                                      &cases[i].options, NULL, &error),
                         cases[i].code);
        assert_int_equal(error.code, cases[i].code);
        assert_true(cases[i].code == TRAM_EVALUE || strstr(error.detail, path));
    }
    const tram_offered good = {.name = "name", .server = server};
    assert_int_equal(tram_runtime_offer_listeners(runtime, "", 0, &good, 1, NULL, NULL, NULL), TRAM_EVALUE);
    tram_runtime_free(runtime);
    tram_runtime_free(other);
}

/* As if the file system refused to change a mode. */
static _Atomic int fchmod_error;

int fchmod(int fd, mode_t mode) {
    if (!fchmod_error)
        return (int)syscall(SYS_fchmod, fd, mode);
    errno = fchmod_error;
    return -1;
}

static void test_V_50_an_offer_that_is_refused_leaves_nothing(void **state) {
    const tram_server_options plain = {0};
    tram_runtime *runtime = runtime_new(*state, 1);
    const tram_offered offered = {.name = "name", .server = serve(runtime, &old_name, &plain)};
    const char *path = in_folder("offer");
    int before = open_descriptors();
    tram_error error = {0};
    fchmod_error = EPERM;
    assert_int_equal(tram_runtime_offer_listeners(runtime, path, strlen(path), &offered, 1, NULL, NULL, &error),
                     -EPERM);
    fchmod_error = 0;
    assert_string_equal(error.operation, "chmod");
    assert_non_null(strstr(error.detail, path));
    assert_false(exists(path));
    assert_int_equal(open_descriptors(), before);
    /* Nor does a runtime that has ended offer anything. */
    assert_int_equal(tram_runtime_start(runtime), 0);
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 0);
    tram_socket_address address;
    int other = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(tram_socket_address_unix(path, strlen(path), &address), 0);
    assert_int_equal(bind(other, (struct sockaddr *)&address.address, address.size), 0);
    before = open_descriptors();
    error = (tram_error){0};
    assert_int_equal(tram_runtime_offer_listeners(runtime, path, strlen(path), &offered, 1, NULL, NULL, &error),
                     TRAM_ESTATE);
    assert_int_equal(error.code, TRAM_ESTATE);
    assert_string_equal(error.operation, "offer_listeners");
    assert_true(exists(path)); /* it is somebody else's */
    assert_int_equal(open_descriptors(), before);
    close(other);
    unlink(path);
    tram_runtime_free(runtime);
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_V_45_each_socket_is_served),
        CASE(test_V_45_steering_needs_a_socket_each),
        CASE(test_V_45_a_refused_option_is_told_with_its_address),
        CASE(test_V_45_bad_sockets_stay_the_callers),
        CASE(test_V_45_several_sockets_of_one_loop),
        CASE(test_V_45_U_5_a_unix_socket_with_its_file),
        CASE(test_U_5_the_file_of_a_given_socket_goes_with_it),
        CASE(test_U_5_a_call_that_fails_leaves_socket_and_file),
        CASE(test_V_46_sockets_of_systemd),
        CASE(test_V_47_from_one_to_the_next),
        CASE(test_V_47_V_17_the_queue_goes_along),
        CASE(test_X_12_an_offers_argument_comes_back_when_it_is_freed),
        CASE(test_V_47_a_server_that_was_closed_gives_nothing),
        CASE(test_V_47_each_socket_once_and_the_runtime_stops),
        CASE(test_V_47_many_sockets),
        CASE(test_V_48_who_breaks_off_has_changed_nothing),
        CASE(test_X_1_what_is_refused_while_a_runtime_gets_a_server_is_its_error),
        CASE(test_V_48_who_goes_is_told_apart_from_who_talks_nonsense),
        CASE(test_V_48_one_at_a_time),
        CASE(test_V_48_who_stalls_is_turned_away),
        CASE(test_V_48_any_failure_of_the_old_process),
        CASE(test_V_48_V_11_a_successor_waits_for_descriptors),
        CASE(test_V_48_V_11_an_offer_that_cannot_be_watched_tries_again),
        CASE(test_V_48_ready_when_the_old_one_is_gone),
        CASE(test_V_48_other_users_are_refused),
        CASE(test_V_50_the_path_goes_with_the_offer),
        CASE(test_V_50_an_offer_may_be_descriptor_0),
        CASE(test_V_50_nobody_offers),
        CASE(test_V_50_bad_offers),
        CASE(test_V_50_an_offer_that_is_refused_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
