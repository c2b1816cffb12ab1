/* Taking listeners over from a process that does not behave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/support.h"
#include "transports/restart/wire.h"

/* The table of all, which is support/sys.c's. */
extern struct sys __wrap_tram__sys;
static struct sys *const table = &__wrap_tram__sys;
static ssize_t (*sendmsg_before)(int fd, const struct msghdr *header, int flags);

/* ---- The other process, in a thread ---- */

struct fake {
    int fd;
    int link;
    int listener;
    int no_listener;
    void (*play)(struct fake *fake);
    pthread_t thread;
};

static const char name[] = "\0tram-unit-inherit";
static const size_t name_size = sizeof name - 1;

static void say(struct fake *fake, enum inherit_kind kind, int value, const int *fds, size_t count) {
    while (tram__inherit_send(&tram__sys, fake->link, kind, value, "name", fds, count) == -EINTR) {
    }
}

static void say_raw(struct fake *fake, const void *data, size_t size, const int *fds, size_t count) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(64 * sizeof(int))];
    } control = {0};
    struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1};
    if (count) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(count * sizeof *fds);
        control.header = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(count * sizeof *fds), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), fds, count * sizeof *fds);
    }
    assert_int_equal(sendmsg(fake->link, &header, MSG_NOSIGNAL), size);
}

static void hear(struct fake *fake) {
    struct inherit_message message;
    ssize_t size = recv(fake->link, &message, sizeof message, 0);
    assert_true(size <= 0 || tram__inherit_good(&message, (size_t)size));
}

/* A message as it should be, to be spoilt. */
static struct inherit_message message_of(enum inherit_kind kind, int value) {
    int ends[2];
    struct inherit_message message;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    int status;
    while ((status = tram__inherit_send(&tram__sys, ends[0], kind, value, "name", NULL, 0)) == -EINTR) {
    }
    assert_int_equal(status, 0);
    assert_int_equal(recv(ends[1], &message, sizeof message, 0), sizeof message);
    close(ends[0]), close(ends[1]);
    return message;
}

static void *fake_run(void *arg) {
    struct fake *fake = arg;
    fake->link = accept4(fake->fd, NULL, NULL, SOCK_CLOEXEC);
    fake->play(fake);
    close(fake->link);
    return NULL;
}

static void fake_begin(struct fake *fake, void (*play)(struct fake *fake)) {
    tram_socket_address address;
    uint16_t port;
    calls_begin();
    *fake = (struct fake){.play = play};
    fake->listener = tcp_listener(5, &port);
    fake->no_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fake->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(tram_socket_address_unix(name, name_size, &address), 0);
    assert_int_equal(bind(fake->fd, (struct sockaddr *)&address.address, address.size), 0);
    assert_int_equal(listen(fake->fd, 1), 0);
    assert_int_equal(pthread_create(&fake->thread, NULL, fake_run, fake), 0);
}

static void fake_end(struct fake *fake) {
    pthread_join(fake->thread, NULL);
    close(fake->fd), close(fake->listener), close(fake->no_listener);
}

/* ---- What it does ---- */

static void hang_up_at_once(struct fake *fake) {
    (void)fake;
}

static void hang_up_when_asked(struct fake *fake) {
    hear(fake);
}

static void hang_up_in_the_middle(struct fake *fake) {
    int twice[] = {fake->listener, fake->listener};
    hear(fake);
    say(fake, INHERIT_SOCKETS, 2, twice, 2);
}

static void refuse_unheard(struct fake *fake) {
    say(fake, INHERIT_REFUSED, -EBUSY, NULL, 0);
}

static void refuse_for_no_reason(struct fake *fake) {
    hear(fake);
    say(fake, INHERIT_REFUSED, 7, NULL, 0);
}

static void wait_for_the_other_end(struct fake *fake) {
    char byte;
    while (recv(fake->link, &byte, 1, 0) > 0)
        continue;
}

static void say_nothing(struct fake *fake) {
    hear(fake);
    wait_for_the_other_end(fake);
}

static void stop_in_the_middle(struct fake *fake) {
    hear(fake);
    say(fake, INHERIT_SOCKETS, 1, &fake->listener, 1);
    wait_for_the_other_end(fake);
}

static void count_wrong(struct fake *fake) {
    hear(fake);
    say(fake, INHERIT_SOCKETS, 1, &fake->listener, 1);
    say(fake, INHERIT_END, 2, NULL, 0);
}

static void claim_more(struct fake *fake) {
    hear(fake);
    say(fake, INHERIT_SOCKETS, 2, &fake->listener, 1);
    say(fake, INHERIT_END, 1, NULL, 0);
}

static void send_none(struct fake *fake) {
    hear(fake);
    say(fake, INHERIT_SOCKETS, 0, NULL, 0);
    say(fake, INHERIT_END, 0, NULL, 0);
}

static void end_with_one(struct fake *fake) {
    hear(fake);
    say(fake, INHERIT_END, 0, &fake->listener, 1);
}

static void skip_ahead(struct fake *fake) {
    hear(fake);
    say(fake, INHERIT_DONE, 0, NULL, 0);
}

static void send_what_does_not_listen(struct fake *fake) {
    int both[] = {fake->listener, fake->no_listener};
    hear(fake);
    say(fake, INHERIT_SOCKETS, 2, both, 2);
    say(fake, INHERIT_END, 2, NULL, 0);
}

static void send_too_many_for_a_message(struct fake *fake) {
    struct inherit_message message = message_of(INHERIT_SOCKETS, 64);
    int fds[64];
    for (size_t i = 0; i < 64; i++)
        fds[i] = fake->listener;
    hear(fake);
    say_raw(fake, &message, sizeof message, fds, 64);
}

static void send_too_many_for_the_room(struct fake *fake) {
    int fds[8];
    for (size_t i = 0; i < 8; i++)
        fds[i] = fake->listener;
    hear(fake);
    say(fake, INHERIT_SOCKETS, 3, fds, 3);
    say(fake, INHERIT_SOCKETS, 8, fds, 8);
}

static void send_a_short_one(struct fake *fake) {
    struct inherit_message message = message_of(INHERIT_SOCKETS, 1);
    hear(fake);
    say_raw(fake, &message, sizeof message - 1, &fake->listener, 1);
}

static void send_a_long_one(struct fake *fake) {
    struct inherit_message message[2] = {message_of(INHERIT_SOCKETS, 1), message_of(INHERIT_END, 1)};
    hear(fake);
    say_raw(fake, message, sizeof message[0] + 1, &fake->listener, 1);
}

static void send_another_version(struct fake *fake) {
    struct inherit_message message = message_of(INHERIT_SOCKETS, 1);
    message.magic++;
    hear(fake);
    say_raw(fake, &message, sizeof message, &fake->listener, 1);
}

static void send_an_unknown_kind(struct fake *fake) {
    struct inherit_message message = message_of(INHERIT_REFUSED + 1, 1);
    hear(fake);
    say_raw(fake, &message, sizeof message, &fake->listener, 1);
}

static void send_an_endless_name(struct fake *fake) {
    struct inherit_message message = message_of(INHERIT_SOCKETS, 1);
    memset(message.name, 'x', sizeof message.name);
    hear(fake);
    say_raw(fake, &message, sizeof message, &fake->listener, 1);
}

static struct rlimit limit;

/* The other end can take one more descriptor at most. */
static void leave_no_descriptors(struct fake *fake) {
    int fds[] = {fake->listener, fake->listener, fake->listener};
    hear(fake);
    int next = dup(0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    struct rlimit low = {.rlim_cur = (rlim_t)next + 1, .rlim_max = limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    say(fake, INHERIT_SOCKETS, 3, fds, 3);
    wait_for_the_other_end(fake);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void send_nothing_but_descriptors(struct fake *fake) {
    int fds[TRAM_INHERIT_BATCH];
    for (size_t i = 0; i < TRAM_INHERIT_BATCH; i++)
        fds[i] = fake->listener;
    hear(fake);
    say_raw(fake, "", 0, fds, TRAM_INHERIT_BATCH);
}

static void test_V_49_what_may_come_instead(void **state) {
    (void)state;
    const struct {
        void (*play)(struct fake *fake);
        int code;
    } cases[] = {
        {hang_up_at_once, TRAM_EINCOMPLETE},
        {hang_up_when_asked, TRAM_EINCOMPLETE},
        {hang_up_in_the_middle, TRAM_EINCOMPLETE},
        {refuse_unheard, -EBUSY},
        {refuse_for_no_reason, -EPROTO},
        {say_nothing, TRAM_ETIMEOUT},
        {stop_in_the_middle, TRAM_ETIMEOUT},
        {count_wrong, -EPROTO},
        {claim_more, -EPROTO},
        {send_none, -EPROTO},
        {end_with_one, -EPROTO},
        {skip_ahead, -EPROTO},
        {send_what_does_not_listen, -EPROTO},
        {send_too_many_for_a_message, -EPROTO},
        {send_too_many_for_the_room, TRAM_ELIMIT},
        {send_a_short_one, -EPROTO},
        {send_a_long_one, -EPROTO},
        {send_another_version, -EPROTO},
        {send_an_unknown_kind, -EPROTO},
        {send_an_endless_name, -EPROTO},
        {send_nothing_but_descriptors, -EPROTO},
        {leave_no_descriptors, -EMFILE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fake fake;
        tram_listener found[10];
        int link = -1, before = open_descriptors();
        if (is_emulated() && cases[i].code == -EMFILE)
            continue; /* valgrind keeps that limit in its own way */
        bool late = cases[i].code == TRAM_ETIMEOUT;
        const tram_inherit_options options = {.timeout_ns = late ? 20000000 : 0};
        fake_begin(&fake, cases[i].play);
        int status = tram_listeners_inherit(name, name_size, &options, found, 10, &link);
        if (status != cases[i].code)
            fail_msg("case %zu: %s instead of %s", i, tram_error_name(status), tram_error_name(cases[i].code));
        fake_end(&fake);
        assert_int_equal(link, -1);
        assert_int_equal(open_descriptors(), before);
    }
}

static void give_one(struct fake *fake) {
    hear(fake);
    say(fake, INHERIT_SOCKETS, 1, &fake->listener, 1);
    say(fake, INHERIT_END, 1, NULL, 0);
}

static void answer_nonsense(struct fake *fake) {
    give_one(fake);
    hear(fake);
    say(fake, INHERIT_END, 0, &fake->listener, 1);
}

static void answer_nothing(struct fake *fake) {
    give_one(fake);
    hear(fake);
    wait_for_the_other_end(fake);
}

static void die_before_the_answer(struct fake *fake) {
    give_one(fake);
    hear(fake);
}

static void answer(struct fake *fake) {
    give_one(fake);
    hear(fake);
    say(fake, INHERIT_DONE, 0, NULL, 0);
}

static void test_V_49_what_may_come_when_it_is_ready(void **state) {
    (void)state;
    const struct {
        void (*play)(struct fake *fake);
        uint64_t timeout_ns;
        int code;
    } cases[] = {
        {answer, 0, 0},
        {die_before_the_answer, 0, 0},
        {answer_nonsense, 0, -EPROTO},
        {answer_nothing, 20000000, TRAM_ETIMEOUT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fake fake;
        tram_listener found[1];
        int link = -1, before = open_descriptors();
        fake_begin(&fake, cases[i].play);
        assert_int_equal(tram_listeners_inherit(name, name_size, NULL, found, 1, &link), 1);
        assert_string_equal(found[0].name, "name");
        assert_int_equal(tram_listeners_ready(link, cases[i].timeout_ns), cases[i].code);
        tram_listeners_close(found, 1);
        assert_int_equal(found[0].fd, -1);
        fake_end(&fake);
        assert_int_equal(open_descriptors(), before);
    }
}

/* Closes the listener before the first message to it: whoever was not accepted yet is reset. */
static int abandoned;

static ssize_t abandoned_sendmsg(int fd, const struct msghdr *header, int flags) {
    close(abandoned);
    table->sendmsg = sendmsg_before;
    return table->sendmsg(fd, header, flags);
}

static void test_V_49_one_that_ends_before_it_accepts(void **state) {
    (void)state;
    tram_socket_address address;
    tram_listener found[1];
    int link = -1, before = open_descriptors();
    calls_begin();
    calls_uninterrupted();
    abandoned = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(tram_socket_address_unix(name, name_size, &address), 0);
    assert_int_equal(bind(abandoned, (struct sockaddr *)&address.address, address.size), 0);
    assert_int_equal(listen(abandoned, 1), 0);
    sendmsg_before = table->sendmsg;
    table->sendmsg = abandoned_sendmsg;
    assert_int_equal(tram_listeners_inherit(name, name_size, NULL, found, 1, &link), TRAM_EINCOMPLETE);
    assert_ptr_equal(table->sendmsg, sendmsg_before);
    assert_int_equal(link, -1);
    assert_int_equal(open_descriptors(), before);
}

/* ---- Calls that fail, and a clock of this test's ---- */

extern struct sys __wrap_tram__sys; /* support/sys.c */

static struct {
    int error;         /* of recvmsg, socket; 0: none */
    unsigned full;     /* as often the queue of the other process is */
    unsigned connects; /* asked for */
    unsigned waits;    /* for a place in the queue, each of a millisecond */
    uint64_t at_ns;    /* the clock, which goes on by `step_ns` each time that it is read */
    uint64_t step_ns;
    struct sys real;
} script;

static int scripted_socket(int family, int type, int protocol) {
    errno = script.error;
    return script.error ? -1 : script.real.socket(family, type, protocol);
}

static int scripted_connect(int fd, const struct sockaddr *address, socklen_t size) {
    script.connects++;
    if (script.connects > script.full)
        return script.real.connect(fd, address, size);
    errno = EAGAIN;
    return -1;
}

static int scripted_poll(struct pollfd *fds, nfds_t count, int timeout_ms) {
    if (count)
        return script.real.poll(fds, count, timeout_ms);
    assert_int_equal(timeout_ms, 1);
    script.waits++;
    return 0;
}

static int scripted_clock(clockid_t clock, struct timespec *ret_time) {
    assert_int_equal(clock, CLOCK_MONOTONIC);
    *ret_time = (struct timespec){.tv_sec = 1, .tv_nsec = (long)script.at_ns};
    script.at_ns += script.step_ns;
    return 0;
}

static ssize_t scripted_recvmsg(int fd, struct msghdr *message, int flags) {
    (void)fd, (void)message, (void)flags;
    errno = script.error;
    return -1;
}

static void script_begin(void) {
    script = (__typeof__(script)){.real = __wrap_tram__sys};
}

static void script_end(void) {
    __wrap_tram__sys = script.real;
}

static void test_V_49_no_descriptor_for_the_link(void **state) {
    (void)state;
    tram_listener found[1];
    int link = -1, before = open_descriptors();
    script_begin();
    __wrap_tram__sys.socket = scripted_socket;
    script.error = EMFILE;
    assert_int_equal(tram_listeners_inherit(name, name_size, NULL, found, 1, &link), -EMFILE);
    script_end();
    assert_int_equal(link, -1);
    assert_int_equal(open_descriptors(), before);
}

/* It is asked again each millisecond while there is time; the clock reads 1 when the time is reckoned from. */
static void test_V_49_a_queue_that_is_full(void **state) {
    (void)state;
    static const struct {
        uint64_t timeout_ns;
        unsigned full, connects;
        int answer;
    } cases[] = {
        {1, UINT_MAX, 1, TRAM_ETIMEOUT}, /* the end is now */
        {2, UINT_MAX, 2, TRAM_ETIMEOUT},
        {3, UINT_MAX, 3, TRAM_ETIMEOUT},
        {100, 7, 8, -ECONNREFUSED}, /* nobody has that name */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const tram_inherit_options options = {.timeout_ns = cases[i].timeout_ns};
        tram_listener found[1];
        int link = -1, before = open_descriptors();
        calls_begin();
        script_begin();
        __wrap_tram__sys.connect = scripted_connect;
        __wrap_tram__sys.poll = scripted_poll;
        __wrap_tram__sys.clock_gettime = scripted_clock;
        script.full = cases[i].full;
        script.step_ns = 1;
        int status = tram_listeners_inherit(name, name_size, &options, found, 1, &link);
        script_end();
        if (status != cases[i].answer || script.connects != cases[i].connects)
            fail_msg("case %zu: %s after %u", i, tram_error_name(status), script.connects);
        assert_int_equal(script.waits, cases[i].connects - 1);
        assert_int_equal(link, -1);
        assert_int_equal(open_descriptors(), before);
    }
}

/* One end of a link whose other end, which is `ret_other`, has not read what fills it. */
static int full_link(int *ret_other) {
    int ends[2], size = 1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    while (send(ends[0], "x", 1, MSG_NOSIGNAL) == 1)
        continue;
    assert_int_equal(errno, EAGAIN);
    *ret_other = ends[1];
    return ends[0];
}

static void test_V_49_who_never_listens_is_given_up(void **state) {
    (void)state;
    int other, before = open_descriptors(), link = full_link(&other);
    assert_int_equal(tram_listeners_ready(link, 20000000), TRAM_ETIMEOUT);
    close(other);
    assert_int_equal(open_descriptors(), before);
}

static void test_V_49_an_answer_that_cannot_be_received(void **state) {
    (void)state;
    static const int errors[] = {ENOMEM, ENOBUFS, EIO};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        int ends[2], before = open_descriptors();
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
        say(&(struct fake){.link = ends[1]}, INHERIT_DONE, 0, NULL, 0);
        script_begin();
        __wrap_tram__sys.recvmsg = scripted_recvmsg;
        script.error = errors[i];
        int status = tram_listeners_ready(ends[0], 0);
        script_end();
        assert_int_equal(status, -errors[i]);
        close(ends[1]);
        assert_int_equal(open_descriptors(), before);
    }
}

static void test_V_49_options_without_sense(void **state) {
    (void)state;
    tram_listener found[1];
    int link;
    const tram_inherit_options options = {.reserved = {0, 0, 0, 1}};
    assert_int_equal(tram_listeners_inherit(name, name_size, &options, found, 1, &link), TRAM_EVALUE);
    assert_int_equal(tram_listeners_inherit("", 0, NULL, found, 1, &link), TRAM_EVALUE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_V_49_what_may_come_instead),
        cmocka_unit_test(test_V_49_what_may_come_when_it_is_ready),
        cmocka_unit_test(test_V_49_one_that_ends_before_it_accepts),
        cmocka_unit_test(test_V_49_no_descriptor_for_the_link),
        cmocka_unit_test(test_V_49_a_queue_that_is_full),
        cmocka_unit_test(test_V_49_who_never_listens_is_given_up),
        cmocka_unit_test(test_V_49_an_answer_that_cannot_be_received),
        cmocka_unit_test(test_V_49_options_without_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
