/*
 * Rules D-1 to D-6, D-11 and D-22: how datagram endpoints are made. Names that end in .test are answered here; no name
 * server is asked.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/datagram.h"

/* ---- Names ---- */

/* Made for each question: several threads ask. */
struct answer {
    struct addrinfo infos[3];
    struct sockaddr_in four[2];
    struct sockaddr_in6 six;
};

static struct addrinfo info(struct answer *answer, void *address, int family, socklen_t size, struct addrinfo *next) {
    return (struct addrinfo){.ai_family = family,
                             .ai_socktype = SOCK_DGRAM,
                             .ai_protocol = IPPROTO_UDP,
                             .ai_addr = address,
                             .ai_addrlen = size,
                             .ai_canonname = (char *)answer, /* for freeaddrinfo() */
                             .ai_next = next};
}

static struct answer *answer_new(in_port_t port) {
    struct answer *answer = calloc(1, sizeof *answer);
    for (int i = 0; i < 2; i++) {
        answer->four[i] = (struct sockaddr_in){
            .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)i)};
        answer->infos[i] = info(answer, &answer->four[i], AF_INET, sizeof answer->four[i], NULL);
    }
    answer->six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = in6addr_loopback};
    answer->infos[2] = info(answer, &answer->six, AF_INET6, sizeof answer->six, NULL);
    return answer;
}

/*
 * both.test: ::1, then 127.0.0.1; four.test: 127.0.0.1; two.test: 127.0.0.1 and 127.0.0.2; odd.test: 192.0.2.1, which
 * is nobody's, and ::1; alien.test: what is no address of the internet.
 */
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret_result) {
    if (!host || !strstr(host, ".test")) {
        int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
        *(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
        return next(host, port, hints, ret_result);
    }
    if (hints->ai_socktype != SOCK_DGRAM)
        return EAI_SERVICE;
    if (strcmp(host, "nobody.test") == 0)
        return EAI_NONAME;
    struct answer *answer = answer_new(htons((uint16_t)(port ? atoi(port) : 0)));
    *ret_result = &answer->infos[0];
    if (strcmp(host, "both.test") == 0) {
        answer->infos[2].ai_next = &answer->infos[0];
        *ret_result = &answer->infos[2];
    } else if (strcmp(host, "two.test") == 0) {
        answer->infos[0].ai_next = &answer->infos[1];
    } else if (strcmp(host, "odd.test") == 0) {
        answer->four[0].sin_addr.s_addr = inet_addr("192.0.2.1");
        answer->infos[0].ai_next = &answer->infos[2];
    } else if (strcmp(host, "alien.test") == 0) {
        answer->infos[0].ai_family = AF_UNIX;
    }
    return 0;
}

void freeaddrinfo(struct addrinfo *result) {
    if (result && result->ai_canonname) {
        free(result->ai_canonname);
        return;
    }
    void (*next)(struct addrinfo *);
    *(void **)&next = dlsym(RTLD_NEXT, "freeaddrinfo");
    next(result);
}

static bool have_inet6(void) {
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    bool have = fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof any) == 0;
    if (fd >= 0)
        close(fd);
    return have;
}

/* ---- Helpers ---- */

static const char *text_of(const tram_socket_address *address) {
    static char text[TRAM_ADDRESS_TEXT_SIZE];
    return tram_socket_address_text(address, text, sizeof text);
}

static char *port_text(const tram_socket_address *address) {
    static char text[8];
    struct sockaddr_in inet;
    memcpy(&inet, &address->address, sizeof inet);
    snprintf(text, sizeof text, "%d", ntohs(inet.sin_port));
    return text;
}

static int fd_of(tram_transport *transport) {
    const tram_socket *view = tram_transport_get_extra_info(transport, "socket", NULL);
    return view->fd;
}

static int option_of(int fd, int name) {
    int value = -1;
    socklen_t size = sizeof value;
    assert_int_equal(getsockopt(fd, SOL_SOCKET, name, &value, &size), 0);
    return value;
}

static void finish(struct world *world, struct recorder *recorder, tram_transport *transport) {
    assert_int_equal(tram_transport_close(transport), 0);
    run_until(world, &recorder->was_released);
    world->trace[0] = '\0';
}

/* Makes an endpoint, says where it is bound, and ends it. */
static const char *bound_to(struct world *world, const tram_datagram_options *options) {
    static char text[TRAM_ADDRESS_TEXT_SIZE];
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = endpoint_new(world, recorder, options);
    snprintf(text, sizeof text, "%s", text_of(tram_transport_get_extra_info(transport, "sockname", NULL)));
    finish(world, recorder, transport);
    return text;
}

/* A directory of this test's own. */
static const char *scratch(void) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/tram-datagram-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static int unix_socket(const tram_socket_address *address) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address->address, address->size), 0);
    return fd;
}

/* ---- D-1 ---- */

static void test_D_1_gives_transport_and_protocol(void **state) {
    struct endpoint endpoint = endpoint_open(*state);
    const tram_socket *view = tram_transport_get_extra_info(endpoint.transport, "socket", NULL);
    assert_int_equal(view->family, AF_INET);
    assert_int_equal(view->type, SOCK_DGRAM);
    assert_int_equal(view->protocol, IPPROTO_UDP);
    assert_null(tram_transport_get_extra_info(endpoint.transport, "peername", NULL));
    assert_false(tram_transport_is_closing(endpoint.transport));
    peer_sends(&endpoint, 100, 0);
    run_until_traced(endpoint.world, "datagram:100");
    assert_int_equal(send_pattern(&endpoint, 50, 7), 0);
    expect_pattern(&endpoint, 50, 7);
    endpoint_close(&endpoint);
}

static void test_D_1_takes_names_families_and_a_port_alone(void **state) {
    struct world *world = *state;
    tram_datagram_options options = {.local_host = "four.test"};
    assert_memory_equal(bound_to(world, &options), "127.0.0.1:", 10);
    options = (tram_datagram_options){.local_port = "0"};
    assert_memory_equal(bound_to(world, &options), "0.0.0.0:", 8);
    options = (tram_datagram_options){.local_host = "127.0.0.1", .family = AF_INET, .protocol = IPPROTO_UDP};
    assert_memory_equal(bound_to(world, &options), "127.0.0.1:", 10);
    if (have_inet6()) {
        options = (tram_datagram_options){.local_host = "both.test"};
        assert_memory_equal(bound_to(world, &options), "[::1]:", 6);
        options = (tram_datagram_options){.local_port = "0", .family = AF_INET6};
        assert_memory_equal(bound_to(world, &options), "[::]:", 5);
    }
    options = (tram_datagram_options){.local_host = "nobody.test"};
    assert_int_equal(endpoint_error(world, &options), TRAM_ERESOLVE);
    options = (tram_datagram_options){.local_host = "::1", .family = AF_INET, .flags = AI_NUMERICHOST};
    assert_int_equal(endpoint_error(world, &options), TRAM_ERESOLVE);
}

static void test_D_1_bad_options_are_refused_at_once(void **state) {
    struct world *world = *state;
    tram_future *future = NULL;
    const tram_datagram_options bad[] = {
        {.local_host = "127.0.0.1", .reserved = {1}},
        {.local_host = "127.0.0.1", .family = AF_PACKET},
        {.local_path = "/tmp/x", .family = AF_INET},
        {.local_path = "/tmp/x", .remote_host = "127.0.0.1"},
        {.local_host = "127.0.0.1", .family = AF_UNIX},
        {.local_path = ""},
        {.local_path = "a\0b", .local_path_size = 3},
        {.local_path =
             "123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456"
             "789012345678"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(tram_loop_create_datagram_endpoint(world->loop, recorder_factory, world, &bad[i], &future),
                         TRAM_EVALUE);
        assert_null(future);
    }
    assert_int_equal(tram_loop_create_datagram_endpoint(world->loop, NULL, world, bad, &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_create_datagram_endpoint(world->loop, recorder_factory, world, NULL, &future),
                     TRAM_EVALUE);
}

static int failing_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)arg;
    (void)ret_protocol;
    return tram_loop_raise(loop, TRAM_EUSER, NULL, "no");
}

static bool done(void *arg) {
    return tram_future_done(arg);
}

static void test_D_1_a_factory_that_fails_fails_it(void **state) {
    struct world *world = *state;
    tram_datagram_options options = {.local_host = "127.0.0.1"};
    tram_future *future;
    assert_int_equal(tram_loop_create_datagram_endpoint(world->loop, failing_factory, NULL, &options, &future), 0);
    run_until_true(world, done, future);
    assert_int_equal(tram_future_result(future, NULL), TRAM_EUSER);
    assert_string_equal(tram_future_error(future)->detail, "no");
    tram_future_release(future);
}

/* rules: D-1, X-3 */
static void test_cancelling_leaves_nothing(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future;
    /* While the resolver is asked. */
    tram_datagram_options options = {.local_host = "four.test"};
    assert_int_equal(tram_loop_create_datagram_endpoint(world->loop, recorder_factory, world, &options, &future), 0);
    tram_future_cancel(future);
    run_until_true(world, done, future);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    assert_trace(world, "");
    /* Before connection_made. */
    options.local_host = "127.0.0.1";
    assert_int_equal(endpoint_try(world, recorder, &options, &future), 0);
    tram_future_cancel(future);
    assert_trace(world, ""); /* `released` comes from the loop */
    run_until(world, &recorder->was_released);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    assert_trace(world, "released");
}

static int cancel_when_made(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") == 0) {
        assert_int_equal(tram_future_cancel(recorder->arg), 1);
        assert_true(tram_future_cancelled(recorder->arg));
        assert_true(tram_transport_is_closing(recorder->base.transport));
    }
    return 0;
}

struct canceller {
    struct recorder *recorder;
    tram_future *future;
    int returns;
};

static int cancelling_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct canceller *canceller = arg;
    (void)loop;
    assert_int_equal(tram_future_cancel(canceller->future), 1);
    *ret_protocol = canceller->returns ? NULL : &canceller->recorder->base;
    return canceller->returns;
}

/* The name is looked up, so that the factory is called by the loop. */
static void test_C_11_X_3_cancelled_in_the_factory(void **state) {
    struct world *world = *state;
    for (int fails = 0; fails < 2; fails++) {
        struct canceller canceller = {.recorder = recorder_new(world, NULL), .returns = fails ? -EIO : 0};
        tram_datagram_options options = {.local_host = "four.test"};
        assert_int_equal(tram_loop_create_datagram_endpoint(world->loop, cancelling_factory, &canceller, &options,
                                                            &canceller.future),
                         0);
        run_until_true(world, done, canceller.future);
        run_to_rest(world);
        assert_true(tram_future_cancelled(canceller.future));
        assert_int_equal(canceller.recorder->was_released, !fails);
        assert_trace(world, fails ? "" : "released");
        tram_future_release(canceller.future);
    }
}

static void test_L_37_a_name_that_stands_for_no_address(void **state) {
    struct world *world = *state;
    tram_datagram_options options = {.local_host = "alien.test"};
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future;
    assert_int_equal(endpoint_try(world, recorder, &options, &future), 0);
    run_until_true(world, done, future);
    const tram_error *error = tram_future_error(future);
    assert_non_null(error);
    assert_int_equal(error->code, TRAM_ERESOLVE);
    assert_string_equal(error->detail, "the name stands for no address");
    tram_future_release(future);
    assert_trace(world, "");
}

/* rules: D-1, C-11 */
static void test_C_11_cancelled_in_connection_made(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future;
    tram_datagram_options options = {.local_host = "127.0.0.1"};
    recorder->on = cancel_when_made;
    assert_int_equal(endpoint_try(world, recorder, &options, &future), 0);
    recorder->arg = future;
    run_to_rest(world);
    assert_trace(world, "made lost:0 released");
    tram_future_release(future);
}

static void test_D_1_out_of_memory_is_an_error_at_every_step(void **state) {
    struct world *world = *state;
    tram_datagram_options options = {.local_host = "127.0.0.1", .remote_host = "127.0.0.1", .remote_port = "9"};
    bool succeeded = false;
    for (size_t allowed = 0; !succeeded; allowed++) {
        world_reopen(world);
        tram_future *future = NULL;
        struct recorder *recorder = recorder_new(world, NULL);
        world->fail_after = allowed;
        int status = endpoint_try(world, recorder, &options, &future);
        world->fail_after = SIZE_MAX;
        if (!status) {
            run_until_true(world, done, future);
            status = tram_future_result(future, NULL);
            tram_future_release(future);
        }
        succeeded = !status;
        if (!succeeded)
            assert_int_equal(status, -ENOMEM);
        assert_in_range(allowed, 0, 50);
    }
    world->trace[0] = '\0';
}

/* ---- D-2 ---- */

static void test_D_2_a_socket_excludes_everything_else(void **state) {
    struct world *world = *state;
    tram_socket_address address;
    tram_future *future;
    int fd = udp_socket(&address);
    const tram_datagram_options bad[] = {
        {.sock = &fd, .local_host = "127.0.0.1"}, {.sock = &fd, .local_port = "1"},
        {.sock = &fd, .remote_host = "::1"},      {.sock = &fd, .remote_port = "1"},
        {.sock = &fd, .local_path = "/tmp/x"},    {.sock = &fd, .remote_path = "/tmp/x"},
        {.sock = &fd, .family = AF_INET},         {.sock = &fd, .protocol = IPPROTO_UDP},
        {.sock = &fd, .flags = AI_PASSIVE},       {.sock = &fd, .reuse_port = true},
        {.sock = &fd, .allow_broadcast = true},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(endpoint_try(world, recorder_new(world, NULL), &bad[i], &future), TRAM_EVALUE);
    /* It is unharmed, and the caller's. */
    assert_true(fcntl(fd, F_GETFD) >= 0);
    close(fd);
}

static void test_D_2_the_socket_must_be_of_datagrams(void **state) {
    struct world *world = *state;
    tram_future *future;
    int fds[2], pipe_fds[2];
    unix_pair(fds);
    assert_int_equal(pipe(pipe_fds), 0);
    tram_datagram_options options = {.sock = &fds[0]};
    assert_int_equal(endpoint_try(world, recorder_new(world, NULL), &options, &future), TRAM_EVALUE);
    options.sock = &pipe_fds[0];
    assert_int_equal(endpoint_try(world, recorder_new(world, NULL), &options, &future), TRAM_EVALUE);
    int closed = pipe_fds[0];
    close(pipe_fds[0]);
    options.sock = &closed;
    assert_int_equal(endpoint_try(world, recorder_new(world, NULL), &options, &future), -EBADF);
    close(pipe_fds[1]);
    close(fds[0]);
    close(fds[1]);
}

/* rules: D-2, T-15, T-18 */
static void test_a_given_socket_becomes_the_transports(void **state) {
    struct world *world = *state;
    tram_socket_address address;
    tram_future *future;
    int fd = udp_socket(&address);
    set_blocking(fd, true);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_datagram_options options = {.sock = &fd};
    tram_transport *transport = endpoint_new(world, recorder, &options);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(endpoint_try(world, recorder_new(world, NULL), &options, &future), TRAM_ESTATE);
    finish(world, recorder, transport);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* ---- D-3 ---- */

static void test_D_3_without_an_address_the_family_must_be_given(void **state) {
    struct world *world = *state;
    tram_future *future;
    tram_datagram_options options = {0};
    assert_int_equal(endpoint_try(world, recorder_new(world, NULL), &options, &future), TRAM_EVALUE);
    options.reuse_port = true;
    assert_int_equal(endpoint_try(world, recorder_new(world, NULL), &options, &future), TRAM_EVALUE);

    options = (tram_datagram_options){.family = AF_INET};
    assert_string_equal(bound_to(world, &options), "0.0.0.0:0");
    options.family = AF_UNIX;
    assert_string_equal(bound_to(world, &options), "unix:");
}

static void test_D_3_an_unbound_socket_can_send(void **state) {
    struct world *world = *state;
    tram_socket_address address;
    char bytes[8];
    int fd = udp_socket(&address);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_datagram_options options = {.family = AF_INET};
    tram_transport *transport = endpoint_new(world, recorder, &options);
    assert_int_equal(tram_transport_sendto(transport, "hello", 5, &address), 0);
    assert_int_equal(recv(fd, bytes, sizeof bytes, 0), 5);
    finish(world, recorder, transport);
    close(fd);
}

static void test_D_3_unix_addresses_are_paths(void **state) {
    struct world *world = *state;
    const char *folder = scratch();
    char here[128], there[128], bytes[16];
    snprintf(here, sizeof here, "%s/here", folder);
    snprintf(there, sizeof there, "%s/there", folder);
    tram_socket_address there_address, from = {.size = sizeof from.address};
    assert_int_equal(tram_socket_address_unix(there, strlen(there), &there_address), 0);
    int fd = unix_socket(&there_address);

    struct recorder *recorder = recorder_new(world, NULL);
    tram_datagram_options options = {.local_path = here, .family = AF_UNIX};
    tram_transport *transport = endpoint_new(world, recorder, &options);
    assert_int_equal(tram_transport_sendto(transport, "ping", 4, &there_address), 0);
    assert_int_equal(recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from.address, &from.size), 4);
    assert_int_equal(sendto(fd, "pong!", 5, 0, (struct sockaddr *)&from.address, from.size), 5);
    run_until_traced(world, "datagram:5");
    assert_true(recorder->has_peer);
    assert_int_equal(recorder->peer.size, there_address.size);
    assert_string_equal(text_of(&recorder->peer), text_of(&there_address));
    finish(world, recorder, transport);

    /* Connected to a path; the file of the first is still there, stale, and gives way. */
    struct recorder *second = recorder_new(world, NULL);
    options = (tram_datagram_options){.local_path = here, .remote_path = there};
    transport = endpoint_new(world, second, &options);
    assert_int_equal(tram_transport_sendto(transport, "again", 5, NULL), 0);
    assert_int_equal(recv(fd, bytes, sizeof bytes, 0), 5);
    assert_int_equal(tram_transport_sendto(transport, "equal", 5, &there_address), 0);
    assert_int_equal(recv(fd, bytes, sizeof bytes, 0), 5);
    finish(world, second, transport);
    assert_int_equal(world->errors, 0);
    close(fd);
    assert_int_equal(unlink(here) | unlink(there) | rmdir(folder), 0);
}

static void test_D_3_only_a_socket_is_removed(void **state) {
    struct world *world = *state;
    const char *folder = scratch();
    char path[128];
    snprintf(path, sizeof path, "%s/file", folder);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    tram_datagram_options options = {.local_path = path};
    assert_int_equal(endpoint_error(world, &options), -EADDRINUSE);
    assert_int_equal(unlink(path), 0);
    /* What cannot even be looked at is logged, and binding says the rest. */
    snprintf(path, sizeof path, "%s/none/there", folder);
    assert_int_equal(endpoint_error(world, &options), -ENOENT);
    assert_int_equal(world->errors, 0);
    /* A loop of links is such a thing. */
    snprintf(path, sizeof path, "%s/self", folder);
    assert_int_equal(symlink(path, path), 0);
    assert_int_equal(endpoint_error(world, &options), -EADDRINUSE);
    assert_int_equal(world->errors, 1);
    assert_non_null(strstr(world->log, path));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
    /* A path that ends in nothing that could listen. */
    options = (tram_datagram_options){.remote_path = "/dev/null"};
    assert_int_equal(endpoint_error(world, &options), -ECONNREFUSED);
}

static void test_D_3_abstract_names_are_never_removed(void **state) {
    struct world *world = *state;
    char name[32] = "";
    int length = 1 + snprintf(name + 1, sizeof name - 1, "tram-%d", (int)getpid());
    tram_datagram_options options = {.local_path = name, .local_path_size = (size_t)length};
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = endpoint_new(world, recorder, &options);
    assert_memory_equal(text_of(tram_transport_get_extra_info(transport, "sockname", NULL)), "unix:@tram-", 11);
    world->trace[0] = '\0';
    assert_int_equal(endpoint_error(world, &options), -EADDRINUSE);
    finish(world, recorder, transport);
}

/* ---- D-4 ---- */

static void test_D_4_only_common_families_are_tried(void **state) {
    struct world *world = *state;
    tram_socket_address address;
    int fd = udp_socket(&address);
    /* The remote has both families, the local one only the second. */
    struct recorder *recorder = recorder_new(world, NULL);
    tram_datagram_options options = {
        .local_host = "four.test", .remote_host = "both.test", .remote_port = port_text(&address)};
    tram_transport *transport = endpoint_new(world, recorder, &options);
    assert_memory_equal(text_of(tram_transport_get_extra_info(transport, "peername", NULL)), "127.0.0.1:", 10);
    finish(world, recorder, transport);

    options = (tram_datagram_options){.local_host = "127.0.0.1", .remote_host = "::1", .remote_port = "9"};
    assert_int_equal(endpoint_error(world, &options), TRAM_EVALUE);
    close(fd);
}

static void test_D_4_the_last_address_of_a_family_is_used(void **state) {
    tram_datagram_options options = {.local_host = "two.test"};
    assert_memory_equal(bound_to(*state, &options), "127.0.0.2:", 10);
}

static void test_D_4_the_next_pair_is_tried_and_else_the_first_error_told(void **state) {
    if (!have_inet6())
        skip();
    struct world *world = *state;
    tram_datagram_options options = {.local_host = "odd.test"};
    assert_memory_equal(bound_to(world, &options), "[::1]:", 6);

    struct sockaddr_in6 taken = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    socklen_t size = sizeof taken;
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&taken, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&taken, &size), 0);
    char port[8];
    snprintf(port, sizeof port, "%d", ntohs(taken.sin6_port));
    options.local_port = port;
    tram_future *future;
    assert_int_equal(endpoint_try(world, recorder_new(world, NULL), &options, &future), 0);
    run_until_true(world, done, future);
    assert_int_equal(tram_future_result(future, NULL), -EADDRNOTAVAIL); /* the second one says EADDRINUSE */
    assert_non_null(strstr(tram_future_error(future)->detail, "192.0.2.1"));
    tram_future_release(future);
    close(fd);
}

/* ---- D-5 ---- */

static void test_D_5_a_remote_address_connects(void **state) {
    struct endpoint endpoint = endpoint_open_connected(*state);
    struct world *world = endpoint.world;
    tram_socket_address stranger_address, peer = {.size = sizeof peer.address};
    int fd = fd_of(endpoint.transport);
    assert_int_equal(getpeername(fd, (struct sockaddr *)&peer.address, &peer.size), 0);
    assert_string_equal(text_of(tram_transport_get_extra_info(endpoint.transport, "peername", NULL)), text_of(&peer));
    /* A stranger is not heard. */
    int stranger = udp_socket(&stranger_address);
    assert_int_equal(sendto(stranger, "?", 1, 0, (struct sockaddr *)&endpoint.address.address, endpoint.address.size),
                     1);
    peer_sends(&endpoint, 2, 0);
    run_until_traced(world, "datagram:");
    run_to_rest(world);
    assert_trace(world, "datagram:2");
    close(stranger);
    /* Its name stays readable after the end (T-10). */
    tram_transport *held = tram_transport_hold(endpoint.transport);
    endpoint_close(&endpoint);
    assert_string_equal(text_of(tram_transport_get_extra_info(held, "peername", NULL)), text_of(&peer));
    tram_transport_release(held);
}

/* Where 0 is free the first that is opened gets it: it is a descriptor as others are. */
static void test_D_5_descriptor_0_has_a_destination_too(void **state) {
    struct world *world = *state;
    tram_socket_address address;
    int low = udp_socket(&address), fd = fcntl(low, F_DUPFD_CLOEXEC, 3);
    bool met = false;
    close(low);
    for (int i = 0; i < 3; i++) {
        calls_begin(); /* another one of the library's sockets gets it than before */
        tram_datagram_options options = {
            .remote_host = "127.0.0.1", .remote_port = port_text(&address), .allow_broadcast = true};
        tram_transport *transport = endpoint_new(world, recorder_new(world, NULL), &options);
        met |= fd_of(transport) == 0;
        char bytes[8];
        assert_int_equal(tram_transport_sendto(transport, "one", 3, NULL), 0);
        assert_int_equal(recv(fd, bytes, sizeof bytes, 0), 3);
        tram_transport_abort(transport);
        run_until_traced(world, "released");
        world->trace[0] = '\0';
    }
    assert_true(met);
    close(fd);
}

static void test_D_5_with_broadcast_it_is_the_default_destination_only(void **state) {
    struct world *world = *state;
    tram_socket_address address, stranger_address;
    char bytes[8];
    int fd = udp_socket(&address), stranger = udp_socket(&stranger_address);
    tram_datagram_options options = {
        .remote_host = "127.0.0.1", .remote_port = port_text(&address), .allow_broadcast = true};
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = endpoint_new(world, recorder, &options);
    tram_socket_address peer = {.size = sizeof peer.address};
    assert_int_equal(getpeername(fd_of(transport), (struct sockaddr *)&peer.address, &peer.size), -1);
    assert_null(tram_transport_get_extra_info(transport, "peername", NULL));

    assert_int_equal(tram_transport_sendto(transport, "one", 3, NULL), 0);
    assert_int_equal(recv(fd, bytes, sizeof bytes, 0), 3);
    assert_int_equal(tram_transport_sendto(transport, "four", 4, &address), 0);
    assert_int_equal(recv(fd, bytes, sizeof bytes, 0), 4);
    assert_int_equal(tram_transport_sendto(transport, "x", 1, &stranger_address), TRAM_EVALUE);
    /* Strangers are heard. */
    tram_socket_address own = address_of(fd_of(transport));
    struct sockaddr_in inet;
    memcpy(&inet, &own.address, sizeof inet);
    inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(sendto(stranger, "hi", 2, 0, (struct sockaddr *)&inet, sizeof inet), 2);
    run_until_traced(world, "datagram:2");
    assert_string_equal(text_of(&recorder->peer), text_of(&stranger_address));
    finish(world, recorder, transport);
    close(fd);
    close(stranger);
}

/* ---- D-6 ---- */

static int created(tram_future *future, void *arg) {
    (void)future;
    trace(arg, "created");
    return 0;
}

static void test_D_6_made_then_creator_then_datagrams(void **state) {
    struct world *world = *state;
    tram_socket_address address;
    int fd = udp_socket(&address), peer = udp_socket(&(tram_socket_address){0});
    assert_int_equal(sendto(peer, "early", 5, 0, (struct sockaddr *)&address.address, address.size), 5);
    tram_datagram_options options = {.sock = &fd};
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future;
    assert_int_equal(endpoint_try(world, recorder, &options, &future), 0);
    assert_int_equal(tram_future_add_done_callback(future, created, world), 0);
    assert_trace(world, ""); /* nothing runs within the call */
    run_until_traced(world, "datagram");
    assert_trace(world, "made created datagram:5");
    void *transport = NULL;
    assert_int_equal(tram_future_result(future, &transport), 0);
    tram_future_release(future);
    finish(world, recorder, transport);
    close(peer);
}

/* ---- D-11, of what was connected before ---- */

static void test_D_11_a_connected_socket_sends_without_an_address(void **state) {
    struct world *world = *state;
    /* The names of both ends are empty. */
    struct endpoint endpoint = endpoint_open_unix(world);
    assert_int_equal(tram_transport_sendto(endpoint.transport, "abc", 3, NULL), 0);
    char bytes[8];
    assert_int_equal(peer_takes(&endpoint, bytes, sizeof bytes), 3);
    assert_int_equal(send(endpoint.peer, "xy", 2, 0), 2);
    run_until_traced(world, "datagram:2");
    assert_false(endpoint.recorder->has_peer);
    endpoint_close(&endpoint);
    world->trace[0] = '\0';

    /* UDP, where an address is not looked at either. */
    tram_socket_address address, other;
    int peer = udp_socket(&address), fd = udp_socket(&other);
    assert_int_equal(connect(fd, (struct sockaddr *)&address.address, address.size), 0);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_datagram_options options = {.sock = &fd};
    tram_transport *transport = endpoint_new(world, recorder, &options);
    assert_string_equal(text_of(tram_transport_get_extra_info(transport, "peername", NULL)), text_of(&address));
    assert_int_equal(tram_transport_sendto(transport, "abc", 3, NULL), 0);
    assert_int_equal(tram_transport_sendto(transport, "abcd", 4, &other), 0);
    assert_int_equal(recv(peer, bytes, sizeof bytes, 0), 3);
    assert_int_equal(recv(peer, bytes, sizeof bytes, 0), 4);
    finish(world, recorder, transport);
    close(peer);
}

/* ---- D-22 ---- */

static void test_D_22_sets_what_was_asked_and_nothing_else(void **state) {
    struct world *world = *state;
    for (int how = 0; how < 4; how++) {
        tram_datagram_options options = {
            .local_host = "127.0.0.1", .reuse_port = how & 1, .allow_broadcast = (how & 2) != 0};
        struct recorder *recorder = recorder_new(world, NULL);
        tram_transport *transport = endpoint_new(world, recorder, &options);
        assert_int_equal(option_of(fd_of(transport), SO_REUSEPORT), how & 1);
        assert_int_equal(option_of(fd_of(transport), SO_BROADCAST), how >> 1);
        assert_int_equal(option_of(fd_of(transport), SO_REUSEADDR), 0);
        finish(world, recorder, transport);
    }
}

static void test_D_22_reuse_port_shares_and_its_lack_is_told(void **state) {
    struct world *world = *state;
    tram_datagram_options options = {.local_host = "127.0.0.1", .reuse_port = true};
    struct recorder *first = recorder_new(world, NULL), *second = recorder_new(world, NULL);
    tram_transport *one = endpoint_new(world, first, &options);
    tram_socket_address address = address_of(fd_of(one));
    options.local_port = port_text(&address);
    tram_transport *two = endpoint_new(world, second, &options);
    finish(world, first, one);
    finish(world, second, two);

    world_use_sys(world, faults_sys());
    fail_next(&faults.setsockopt, ENOPROTOOPT, 1);
    assert_int_equal(endpoint_error(world, &options), TRAM_EVALUE);
}

static void test_T_10_the_name_of_a_unix_peer_that_has_gone(void **state) {
    struct world *world = *state;
    char directory[] = "/tmp/tram-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/peer", directory);
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strcpy(name.sun_path, path);
    int peer = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(peer, (struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_datagram_options options = {.sock = &fd};
    tram_transport *transport = endpoint_new(world, recorder, &options);
    close(peer);
    assert_int_equal(tram_transport_sendto(transport, "x", 1, NULL), 0); /* which ends the connection */
    const tram_socket_address *found = tram_transport_get_extra_info(transport, "peername", NULL);
    assert_non_null(found);
    assert_string_equal(((const struct sockaddr_un *)(const void *)&found->address)->sun_path, path);
    unlink(path);
    rmdir(directory);
    tram_transport_abort(transport);
    run_until(world, &recorder->was_released);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_T_10_the_name_of_a_unix_peer_that_has_gone, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_1_gives_transport_and_protocol, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_1_takes_names_families_and_a_port_alone, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_1_bad_options_are_refused_at_once, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_1_a_factory_that_fails_fails_it, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_cancelling_leaves_nothing, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_C_11_X_3_cancelled_in_the_factory, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_L_37_a_name_that_stands_for_no_address, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_C_11_cancelled_in_connection_made, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_1_out_of_memory_is_an_error_at_every_step, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_2_a_socket_excludes_everything_else, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_2_the_socket_must_be_of_datagrams, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_a_given_socket_becomes_the_transports, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_3_without_an_address_the_family_must_be_given, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_D_3_an_unbound_socket_can_send, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_3_unix_addresses_are_paths, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_3_only_a_socket_is_removed, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_3_abstract_names_are_never_removed, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_4_only_common_families_are_tried, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_4_the_last_address_of_a_family_is_used, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_4_the_next_pair_is_tried_and_else_the_first_error_told, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_D_5_a_remote_address_connects, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_5_descriptor_0_has_a_destination_too, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_5_with_broadcast_it_is_the_default_destination_only, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_D_6_made_then_creator_then_datagrams, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_11_a_connected_socket_sends_without_an_address, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_D_22_sets_what_was_asked_and_nothing_else, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_D_22_reuse_port_shares_and_its_lack_is_told, world_setup, world_teardown),
    };
    return cmocka_run_group_tests_name("datagram endpoints", tests, NULL, NULL);
}
