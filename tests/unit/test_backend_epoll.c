/* The epoll backend by itself. The kernel is the test's: what it is asked, and what it says. */
#include <linux/errqueue.h>
#include <netinet/in.h>

#include "core/backend/backend.h"
#include "core/backend/datagrams.h"
#include "core/loop/loop.h"
#include "support/support.h"

#define FIRST_FD 900 /* from here on descriptors are of this kernel */

/* ---- The kernel ---- */

static struct {
    int errors[4]; /* of the next calls of epoll_ctl; 0: it succeeds */
    unsigned error;
    struct epoll_event events[8]; /* what the next wait finds */
    int event_count;
    int domain;           /* of the sockets */
    int socket_error;     /* SO_ERROR */
    int records;          /* in the error queue */
    unsigned char origin; /* of them */
    unsigned records_read;
    ssize_t results[8]; /* of the next calls that receive or accept: a result, or -errno */
    unsigned result;
    bool no_pwait2;
    int wait_error; /* of the next wait; 0: none */
    int poller;     /* the descriptor whose closes are counted; -1: none */
    unsigned poller_closes;
    uint64_t now_ns;
    uint64_t asked_ns; /* for how long the last wait was to be; UINT64_MAX: for ever */
    unsigned pwaits2;
} kernel;

static struct world *world;

static int answer(ssize_t result) {
    if (result >= 0)
        return (int)result;
    errno = (int)-result;
    return -1;
}

static int own_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    static const char *const operations[] = {[EPOLL_CTL_ADD] = "add", [EPOLL_CTL_MOD] = "mod", [EPOLL_CTL_DEL] = "del"};
    if (fd < FIRST_FD)
        return tram__sys.epoll_ctl(epoll, operation, fd, event);
    uint32_t events = operation == EPOLL_CTL_DEL ? 0 : event->events;
    trace(world, "%s%s%s%s%s%s%s", operations[operation], events & EPOLLIN ? ":in" : "",
          events & EPOLLOUT ? ":out" : "", events & EPOLLRDHUP ? ":rdhup" : "", events & EPOLLONESHOT ? ":once" : "",
          events & EPOLLET ? ":edge" : "", events & EPOLLEXCLUSIVE ? ":exclusive" : "");
    return answer(-kernel.errors[kernel.error++ % 4]);
}

static int collect(struct epoll_event *events) {
    if (kernel.wait_error)
        return answer(-kernel.wait_error);
    int count = kernel.event_count;
    memcpy(events, kernel.events, (size_t)count * sizeof *events);
    kernel.event_count = 0;
    return count;
}

static int own_wait(int epoll, struct epoll_event *events, int count, int timeout_ms) {
    (void)epoll;
    (void)count;
    if (timeout_ms) {
        kernel.asked_ns = timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * 1000000;
        kernel.now_ns += timeout_ms < 0 ? 0 : kernel.asked_ns;
    }
    return collect(events);
}

static int own_pwait2(int epoll, struct epoll_event *events, int count, const struct timespec *timeout) {
    (void)epoll;
    (void)count;
    kernel.pwaits2++;
    if (kernel.no_pwait2)
        return answer(-ENOSYS);
    kernel.asked_ns = (uint64_t)timeout->tv_sec * 1000000000 + (uint64_t)timeout->tv_nsec;
    assert_in_range(timeout->tv_nsec, 0, 999999999);
    kernel.now_ns += kernel.asked_ns;
    return collect(events);
}

static int own_close(int fd) {
    kernel.poller_closes += fd == kernel.poller;
    return tram__sys.close(fd);
}

static int own_clock(clockid_t clock, struct timespec *ret_time) {
    (void)clock;
    *ret_time = (struct timespec){.tv_sec = (time_t)(kernel.now_ns / 1000000000),
                                  .tv_nsec = (long)(kernel.now_ns % 1000000000)};
    return 0;
}

static int own_getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
    assert_true(fd >= FIRST_FD && *size == sizeof(int));
    if (level != SOL_SOCKET)
        return answer(-ENOPROTOOPT);
    *(int *)value = name == SO_DOMAIN ? kernel.domain : name == SO_ERROR ? kernel.socket_error : -1;
    return 0;
}

static ssize_t next_result(const char *call) {
    trace(world, "%s", call);
    return answer(kernel.results[kernel.result++ % 8]);
}

/* A record of the error queue: behind the time, which is none. */
static ssize_t own_recvmsg(int fd, struct msghdr *message, int flags) {
    (void)fd;
    if (!(flags & MSG_ERRQUEUE)) {
        message->msg_controllen = 0;
        return next_result("recvmsg");
    }
    if (kernel.records == 0)
        return answer(-EAGAIN);
    kernel.records--;
    kernel.records_read++;
    struct sock_extended_err error = {.ee_errno = ECONNREFUSED, .ee_origin = kernel.origin};
    struct timeval time = {.tv_sec = -1, .tv_usec = -1};
    struct cmsghdr *control = message->msg_control;
    *control = (struct cmsghdr){CMSG_LEN(sizeof time), SOL_SOCKET, SCM_TIMESTAMP};
    memcpy(CMSG_DATA(control), &time, sizeof time);
    control = (struct cmsghdr *)(void *)((char *)control + CMSG_SPACE(sizeof time));
    *control = (struct cmsghdr){CMSG_LEN(sizeof error), kernel.domain == AF_INET ? IPPROTO_IP : IPPROTO_IPV6,
                                kernel.domain == AF_INET ? IP_RECVERR : IPV6_RECVERR};
    memcpy(CMSG_DATA(control), &error, sizeof error);
    message->msg_controllen = CMSG_SPACE(sizeof time) + CMSG_SPACE(sizeof error);
    return 0;
}

static ssize_t own_send(int fd, const void *data, size_t size, int flags) {
    (void)fd;
    assert_true(data && size == 1 && flags == MSG_NOSIGNAL);
    return next_result("send");
}

static ssize_t own_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                          socklen_t address_size) {
    (void)fd;
    assert_true(data && size == 1 && flags == MSG_NOSIGNAL && !address && !address_size);
    return next_result("sendto");
}

static int own_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    (void)fd;
    assert_true(messages && count && flags == MSG_TRUNC && !timeout);
    messages[0].msg_len = 1;
    messages[0].msg_hdr.msg_controllen = 0;
    return (int)next_result("recvmmsg");
}

static ssize_t own_sendfile(int fd, int file, off_t *offset, size_t size) {
    (void)fd;
    (void)file;
    assert_true(*offset == 7 && size == 1);
    return next_result("sendfile");
}

static ssize_t own_recv(int fd, void *data, size_t size, int flags) {
    (void)fd;
    (void)flags;
    assert_true(data && size);
    return next_result("recv");
}

static ssize_t own_read(int fd, void *data, size_t size) {
    assert_true(data && size);
    return fd < FIRST_FD ? tram__sys.read(fd, data, size) : next_result("read");
}

static int own_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    (void)fd;
    assert_true(address && size && flags == (SOCK_NONBLOCK | SOCK_CLOEXEC));
    return (int)next_result("accept");
}

static struct sys sys;

static int setup(void **state) {
    int status = world_setup(state);
    world = *state;
    memset(&kernel, 0, sizeof kernel);
    kernel.domain = AF_UNIX;
    kernel.poller = -1;
    kernel.now_ns = 1000000000000;
    sys = tram__sys;
    sys.epoll_ctl = own_ctl;
    sys.epoll_wait = own_wait;
    sys.epoll_pwait2 = own_pwait2;
    sys.clock_gettime = own_clock;
    sys.close = own_close;
    sys.getsockopt = own_getsockopt;
    sys.recvmsg = own_recvmsg;
    sys.recv = own_recv;
    sys.send = own_send;
    sys.sendto = own_sendto;
    sys.recvmmsg = own_recvmmsg;
    sys.sendfile = own_sendfile;
    sys.read = own_read;
    sys.accept4 = own_accept4;
    world_use_sys(world, &sys);
    return status;
}

/* ---- Owners ---- */

/* An io, and the pointer that stands behind each. */
#define OWN(name)                                                                                                      \
    struct {                                                                                                           \
        struct io io;                                                                                                  \
        void *near;                                                                                                    \
    } name##_owner = {.near = NULL};                                                                                   \
    struct io *const name = &name##_owner.io

static void happens(const struct io *io, uint32_t events) {
    kernel.events[kernel.event_count++] =
        (struct epoll_event){.events = events, .data.u64 = (uint64_t)io->generation << 32 | io->slot};
}

/* The same, of an io that is edge-triggered. */
static void happens_newly(const struct io *io, uint32_t events) {
    happens(io, events);
    kernel.events[kernel.event_count - 1].data.u64 |= (uint64_t)1 << 32;
}

static void on_ready(struct io *io, unsigned events) {
    trace(world, "%d:%s%s", io->fd, events & IO_READ ? "r" : "", events & IO_WRITE ? "w" : "");
    assert_true(events && !(events & ~(unsigned)(IO_READ | IO_WRITE)));
}

static size_t gather_nothing(struct io *io, struct iovec *pieces, size_t count) {
    (void)io;
    (void)pieces;
    (void)count;
    return 0;
}

static void on_sent(struct io *io, ssize_t result) {
    (void)io;
    trace(world, "sent:%d", (int)result);
}

static void on_hangup(struct io *io, bool half) {
    (void)io;
    trace(world, "%s", half ? "half" : "gone");
}

static void on_received(struct io *io, void *data, ssize_t result) {
    (void)io;
    (void)data;
    if (result < 0)
        trace(world, "failed:%s", tram_error_name((int)result));
    else
        trace(world, "received:%s", result ? "some" : "0");
}

static bool hears;
static bool hears_errors(const struct io *io) {
    (void)io;
    return hears;
}

static uint32_t accept_limit;
static uint32_t limit_of(const struct io *io) {
    (void)io;
    return accept_limit;
}

static void (*on_accept)(struct io *io);
static void on_accepted(struct io *io, int result, const struct sockaddr_storage *peer, socklen_t peer_size) {
    assert_int_equal(peer != NULL && peer_size, result >= 0);
    if (result < 0)
        trace(world, "failed:%s", tram_error_name(result));
    else
        trace(world, "accepted");
    if (on_accept)
        on_accept(io);
}

static const struct io_receiver receiver = {.received = on_received};
static const struct io_kind watching = {.name = "watching", .ready = on_ready};
static const struct io_kind stream = {.name = "stream",
                                      .receiver = &receiver,
                                      .gather = gather_nothing,
                                      .sent = on_sent,
                                      .hears_errors = hears_errors,
                                      .hangup = on_hangup};
static const struct io_kind listener = {.name = "listener", .accepted = on_accepted, .accept_limit = limit_of};

static void add(struct io *io, const struct io_kind *kind, int fd) {
    assert_int_equal(tram__io_add(io, world->loop, kind, fd), 0);
}

static void add_watching(struct io *io, int fd, unsigned events) {
    add(io, &watching, fd);
    assert_int_equal(tram__io_watch(io, events), 0);
}

#define assert_asked(expected) assert_trace(world, expected)

/* ---- What is asked ---- */

static void test_what_is_wanted_is_what_is_asked(void **state) {
    (void)state;
    static const struct {
        unsigned events;
        const char *asked, *changed;
    } cases[] = {
        {IO_READ, "add:in", "mod"},
        {IO_WRITE, "add:out", "mod"},
        {IO_READ | IO_WRITE, "add:in:out", "mod"},
        {IO_HANGUP, "add:rdhup", "mod"},
        {IO_WRITE | IO_HANGUP, "add:out:rdhup", "mod"},
        {IO_READ | IO_ONCE, "add:in:once", "mod"},
        {IO_WRITE | IO_ONCE, "add:out:once", "mod"},
        {IO_READ | IO_WRITE | IO_ONCE, "add:in:out:once", "mod"},
        {0, "", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OWN(io);
        add_watching(io, FIRST_FD, cases[i].events);
        assert_asked(cases[i].asked);
        assert_int_equal(tram__io_watch(io, cases[i].events), 0);
        assert_asked(""); /* it is known */
        assert_int_equal(tram__io_watch(io, 0), 0);
        assert_asked(cases[i].changed);
        tram__io_remove(io);
        assert_asked(cases[i].events ? "del" : "");
        tram__io_remove(io);
        assert_asked("");
    }
}

static void test_a_shared_listener_is_asked_for_exclusively(void **state) {
    (void)state;
    OWN(io);
    add(io, &listener, FIRST_FD);
    io->flags |= IO_EXCLUSIVE;
    assert_int_equal(tram__io_accept_start(io), 0);
    assert_asked("add:in:exclusive");
    tram__io_accept_stop(io);
    assert_asked("del"); /* the kernel changes none of these */
    assert_int_equal(tram__io_accept_start(io), 0);
    assert_asked("add:in:exclusive");
    tram__io_remove(io);
    assert_asked("del");
}

static void test_a_change_that_fails_is_made_in_the_other_way_or_told(void **state) {
    (void)state;
    static const struct {
        bool known;
        int errors[2], status;
        const char *asked;
    } cases[] = {
        {false, {EEXIST, 0}, 0, "add:in:out mod:in:out"}, /* of a copy of what had the number before */
        {false, {EEXIST, EPERM}, -EPERM, "add:in:out mod:in:out"},
        {false, {ENOSPC, 0}, -ENOSPC, "add:in:out"},
        {false, {ENOENT, 0}, -ENOENT, "add:in:out"},
        {true, {ENOENT, 0}, 0, "mod:in:out add:in:out"}, /* it was closed, and its number came again */
        {true, {ENOENT, ENOSPC}, -ENOSPC, "mod:in:out add:in:out"},
        {true, {EEXIST, 0}, -EEXIST, "mod:in:out"},
        {true, {ENOMEM, 0}, -ENOMEM, "mod:in:out"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OWN(io);
        add(io, &watching, FIRST_FD);
        if (cases[i].known)
            assert_int_equal(tram__io_watch(io, IO_READ), 0);
        world->trace[0] = '\0';
        kernel.error = 0;
        memcpy(kernel.errors, cases[i].errors, sizeof cases[i].errors);
        assert_int_equal(tram__io_watch(io, IO_READ | IO_WRITE), cases[i].status);
        assert_asked(cases[i].asked);
        memset(kernel.errors, 0, sizeof kernel.errors);
        /* What failed is asked again, and what succeeded is not. */
        assert_int_equal(tram__io_watch(io, IO_READ | IO_WRITE), 0);
        assert_asked(!cases[i].status ? "" : cases[i].known ? "mod:in:out" : "add:in:out");
        tram__io_remove(io);
        assert_asked("del");
    }
}

static void test_renewing_tells_another_file_from_the_same(void **state) {
    (void)state;
    static const int errors[][2] = {{0, 0}, {ENOENT, -EBADF}, {EPERM, -EPERM}, {EBADF, -EBADF}};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        OWN(io);
        add_watching(io, FIRST_FD, IO_READ | IO_ONCE);
        world->trace[0] = '\0';
        kernel.error = 0;
        kernel.errors[0] = errors[i][0];
        assert_int_equal(tram__io_renew(io), errors[i][1]);
        assert_asked("mod:in:once");
        kernel.errors[0] = 0;
        tram__io_remove(io);
        assert_asked("del");
    }
}

/* ---- What is said ---- */

static void test_each_event_is_told_to_who_wants_it(void **state) {
    (void)state;
    static const uint32_t events[] = {
        EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLPRI, EPOLLIN | EPOLLOUT, EPOLLIN | EPOLLRDHUP, EPOLLOUT | EPOLLHUP};
    for (unsigned wanted = 1; wanted < 4; wanted++)
        for (size_t i = 0; i < sizeof events / sizeof *events; i++)
            for (unsigned once = 0; once <= IO_ONCE; once += IO_ONCE) {
                OWN(io);
                add_watching(io, FIRST_FD, wanted | once);
                world->trace[0] = '\0';
                happens(io, events[i]);
                run_ticks(world, 1);
                bool read = wanted & IO_READ && events[i] & (EPOLLIN | EPOLLERR | EPOLLHUP);
                bool write = wanted & IO_WRITE && events[i] & (EPOLLOUT | EPOLLERR | EPOLLHUP);
                char expected[32];
                snprintf(expected, sizeof expected, "900:%s%s", read ? "r" : "", write ? "w" : "");
                if (read || write)
                    assert_trace(world, expected);
                else
                    assert_null(strchr(world->trace, '9'));
                tram__io_remove(io);
                world->trace[0] = '\0';
            }
}

static void test_a_hang_up_is_told_before_all_else(void **state) {
    (void)state;
    static const struct {
        uint32_t events;
        const char *told;
    } cases[] = {{EPOLLRDHUP, "half"}, {EPOLLRDHUP | EPOLLOUT, "half"},
                 {EPOLLHUP, "gone"},   {EPOLLRDHUP | EPOLLHUP, "gone"},
                 {EPOLLERR, "gone"},   {EPOLLOUT, "sent:0"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OWN(io);
        add(io, &stream, FIRST_FD);
        assert_int_equal(tram__io_send_start(io), 0);
        assert_int_equal(tram__io_hangup_start(io), 0);
        assert_asked("add:out mod:out:rdhup");
        happens(io, cases[i].events);
        run_ticks(world, 1);
        assert_trace(world, cases[i].told);
        tram__io_hangup_stop(io);
        assert_asked("mod:out");
        tram__io_remove(io);
        assert_asked("del");
    }
}

/* What one callback begins to want of another's descriptor comes in the next tick, and nothing else is lost (L-2). */
static struct io first, second;
static unsigned wanted_then;

static int want_more(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return tram__io_watch(&first, wanted_then);
}

static void test_L_2_what_is_wanted_anew_takes_no_event_of_this_tick(void **state) {
    (void)state;
    static const struct {
        unsigned before, then;
        uint32_t events;
        const char *told;
    } cases[] = {
        {IO_READ, IO_READ | IO_WRITE, EPOLLIN | EPOLLOUT, "900:r 901:r"},
        {IO_READ, IO_READ | IO_WRITE, EPOLLOUT, "901:r"},
        {IO_READ, IO_READ | IO_WRITE, EPOLLERR, "900:r 901:r"},
        {IO_READ, IO_READ | IO_WRITE, EPOLLHUP, "900:r 901:r"},
        {IO_WRITE, IO_READ | IO_WRITE, EPOLLIN | EPOLLOUT, "900:w 901:r"},
        {IO_WRITE, IO_READ | IO_WRITE, EPOLLIN, "901:r"},
        {IO_WRITE, IO_READ | IO_WRITE, EPOLLHUP, "900:w 901:r"},
        {IO_WRITE, IO_READ, EPOLLIN | EPOLLOUT, "901:r"},
        {IO_READ, IO_READ, EPOLLIN, "900:r 901:r"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        add_watching(&first, FIRST_FD, cases[i].before);
        add_watching(&second, FIRST_FD + 1, IO_READ);
        wanted_then = cases[i].then;
        assert_int_equal(tram_loop_call_soon(world->loop, want_more, NULL, NULL, NULL), 0);
        happens(&first, cases[i].events);
        happens(&second, EPOLLIN);
        run_ticks(world, 1);
        const char *told = strstr(world->trace, "90");
        assert_non_null(told);
        assert_memory_equal(told, cases[i].told, strlen(cases[i].told));
        world->trace[0] = '\0';
        happens(&first, cases[i].events); /* it lasts, and is told now */
        run_ticks(world, 1);
        assert_non_null(strstr(world->trace, "900:"));
        tram__io_remove(&first);
        tram__io_remove(&second);
        world->trace[0] = '\0';
    }
}

/* ---- Trouble that nobody hears of ---- */

/* A stream whose owner does not receive now: stopping is lazy. */
static void add_paused(struct io *io) {
    add(io, &stream, FIRST_FD);
    assert_int_equal(io_receive_start(io), 0);
    tram__io_receive_stop(io);
    assert_asked("add:in");
}

static void tick_with(const struct io *io, uint32_t events, const char *expected) {
    happens(io, events);
    run_ticks(world, 1);
    assert_trace(world, expected);
}

static void test_L_43_lasting_trouble_becomes_edge_triggered(void **state) {
    (void)state;
    OWN(io);
    add_paused(io);
    tick_with(io, EPOLLHUP, ""); /* once may be chance */
    tick_with(io, EPOLLHUP, "mod:edge");
    happens_newly(io, EPOLLHUP);
    run_ticks(world, 1);
    assert_trace(world, "");
    assert_int_equal(io_receive_start(io), 0);
    assert_asked("mod:in");
    /* Somebody was told something meanwhile: it is as if it had not been. */
    kernel.results[kernel.result % 8] = 1;
    tick_with(io, EPOLLIN | EPOLLHUP, "recv received:some");
    tram__io_receive_stop(io);
    tick_with(io, EPOLLHUP, "");
    assert_int_equal(io_receive_start(io), 0);
    assert_asked(""); /* the kernel was never told to stop */
    kernel.results[kernel.result % 8] = 1;
    tick_with(io, EPOLLIN | EPOLLHUP, "recv received:some");
    tram__io_receive_stop(io);
    tick_with(io, EPOLLHUP, "");
    tick_with(io, EPOLLHUP, "mod:edge");
    tram__io_remove(io);
    assert_asked("del");
}

static void test_L_43_where_that_is_refused_the_kernel_forgets_it(void **state) {
    (void)state;
    OWN(io);
    add_paused(io);
    tick_with(io, EPOLLHUP, "");
    kernel.error = 0;
    kernel.errors[0] = EPERM;
    tick_with(io, EPOLLHUP, "mod:edge del");
    kernel.errors[0] = 0;
    assert_int_equal(io_receive_start(io), 0);
    assert_asked("add:in");
    tram__io_remove(io);
    assert_asked("del");
}

static void test_what_nobody_wants_is_not_asked_for_any_more(void **state) {
    (void)state;
    OWN(io);
    add_paused(io);
    tick_with(io, EPOLLIN, "mod");
    assert_int_equal(io_receive_start(io), 0);
    assert_asked("mod:in");
    tram__io_remove(io);
    assert_asked("del");
}

static void test_P_10_an_error_is_told_to_who_hears_it(void **state) {
    (void)state;
    OWN(io);
    add_paused(io);
    hears = true;
    kernel.socket_error = ECONNRESET;
    for (int i = 0; i < 3; i++)
        tick_with(io, EPOLLERR, "failed:ECONNRESET");
    kernel.socket_error = 0; /* there was none: as if nobody heard */
    tick_with(io, EPOLLERR, "");
    tick_with(io, EPOLLERR, "mod:edge");
    hears = false;
    tram__io_remove(io);
    assert_asked("del");
}

static void test_D_25_an_error_queue_is_emptied_up_to_what_a_call_tells(void **state) {
    (void)state;
    static const struct {
        int domain;
        unsigned char origin;
        unsigned read; /* of five records */
    } cases[] = {{AF_INET, SO_EE_ORIGIN_LOCAL, 5},  {AF_INET, SO_EE_ORIGIN_TIMESTAMPING, 5},
                 {AF_INET, SO_EE_ORIGIN_ICMP, 1},   {AF_INET6, SO_EE_ORIGIN_ICMP6, 1},
                 {AF_INET6, SO_EE_ORIGIN_LOCAL, 5}, {AF_UNIX, SO_EE_ORIGIN_LOCAL, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OWN(io);
        add_paused(io);
        kernel.domain = cases[i].domain;
        kernel.origin = cases[i].origin;
        for (int ticks = 0; ticks < 3; ticks++) {
            kernel.records = 5;
            kernel.records_read = 0;
            /* As long as something is taken each time the loop does not stop to look. */
            tick_with(io, EPOLLERR, cases[i].read || ticks != 1 ? "" : "mod:edge");
            assert_int_equal(kernel.records_read, cases[i].read);
        }
        kernel.records = 0;
        if (cases[i].read) { /* and not any more where it is empty */
            tick_with(io, EPOLLERR, "");
            tick_with(io, EPOLLERR, "mod:edge");
        }
        tram__io_remove(io);
        assert_asked("del");
    }
}

static size_t gather_a_byte(struct io *io, struct iovec *pieces, size_t count) {
    (void)io;
    assert_true(count >= 1);
    pieces[0] = (struct iovec){.iov_base = (void *)(uintptr_t) "x", .iov_len = 1};
    return 1;
}

static void next_range(struct io *io, struct io_range *ret_range) {
    (void)io;
    *ret_range = (struct io_range){.file = FIRST_FD + 1, .offset = 7, .size = 1};
}

static size_t room_for_one(struct io *io) {
    (void)io;
    return 1;
}

static void on_received_with(struct io *io, void *data, ssize_t result, const int *fds, size_t count, bool cut) {
    (void)fds;
    assert_true(count == 0 && !cut);
    on_received(io, data, result);
}

/* Where the kernel gives and takes nothing, whatever it says, nobody is told; else there is always something to do. */
static void test_L_43_trouble_and_nothing_to_do_is_no_work(void **state) {
    (void)state;
    static const struct io_descriptor_kind descriptors = {.room = room_for_one, .received = on_received_with};
    static const struct io_kind busy = {.name = "busy",
                                        .receiver = &receiver,
                                        .gather = gather_a_byte,
                                        .sent = on_sent,
                                        .next_range = next_range,
                                        .range_sent = on_sent,
                                        .descriptors = &descriptors};
    static const struct {
        unsigned wanted;
        uint8_t flags;
        const char *call, *told, *edge;
    } cases[] = {
        {IO_READ, 0, "recv", "recv received:some", "recv mod:in:edge"},
        {IO_READ, IO_NO_SOCKET, "read", "read received:some", "read mod:in:edge"},
        {IO_READ, IO_DESCRIPTORS, "recvmsg", "recvmsg received:some", "recvmsg mod:in:edge"},
        {IO_WRITE, 0, "send", "send sent:1", "send mod:out:edge"},
        {IO_WRITE, IO_SENDS_FILE, "sendfile", "sendfile sent:1", "sendfile mod:out:edge"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OWN(io);
        add(io, &busy, FIRST_FD);
        io->flags |= cases[i].flags;
        assert_int_equal(tram__io_watch(io, cases[i].wanted), 0);
        assert_asked(cases[i].wanted == IO_READ ? "add:in" : "add:out");
        tram_stats before, now;
        tram_loop_stats(world->loop, &before);
        for (size_t k = 0; k < 8; k++)
            kernel.results[k] = 1;
        for (int ticks = 0; ticks < 3; ticks++)
            tick_with(io, EPOLLIN | EPOLLOUT | EPOLLHUP, cases[i].told);
        for (size_t k = 0; k < 8; k++)
            kernel.results[k] = -EAGAIN;
        tick_with(io, EPOLLIN | EPOLLOUT | EPOLLHUP, cases[i].call);
        tick_with(io, EPOLLIN | EPOLLOUT | EPOLLHUP, cases[i].edge);
        tram_loop_stats(world->loop, &now);
        assert_int_equal(now.reads - before.reads, cases[i].wanted == IO_READ ? 3 : 0);
        assert_int_equal(now.bytes_received - before.bytes_received, cases[i].wanted == IO_READ ? 3 : 0);
        assert_int_equal(now.writes - before.writes, cases[i].wanted == IO_WRITE ? 3 : 0);
        assert_int_equal(now.bytes_sent - before.bytes_sent, cases[i].wanted == IO_WRITE ? 3 : 0);
        tram__io_remove(io);
        assert_asked("del");
    }
}

static size_t gather_a_datagram(struct io *io, struct io_datagram *datagrams, size_t count) {
    (void)io;
    assert_true(count >= 1);
    datagrams[0] = (struct io_datagram){.data = "x", .size = 1};
    return 1;
}

static void on_datagram(struct io *io, const struct io_datagram *datagram) {
    (void)io;
    assert_int_equal(datagram->size, 1);
    trace(world, "datagram");
}

static void on_all(struct io *io) {
    (void)io;
}

static void on_failed(struct io *io, int code) {
    (void)io;
    trace(world, "failed:%s", tram_error_name(code));
}

static const struct io_datagram_kind datagram_kind = {.received = on_datagram,
                                                      .received_all = on_all,
                                                      .receive_failed = on_failed,
                                                      .gather = gather_a_datagram,
                                                      .sent = on_sent};

/* A failure is told, and is work as well; what the kernel refuses behind some that it took is none. */
static void test_L_43_trouble_of_datagrams_and_nothing_to_do_is_no_work(void **state) {
    (void)state;
    static const struct io_kind datagrams = {.name = "datagrams", .datagrams = &datagram_kind};
    static const struct {
        unsigned wanted;
        ssize_t first; /* of each tick; -EAGAIN follows */
        const char *told;
        ssize_t nothing;
        const char *call, *edge;
    } cases[] = {
        {IO_READ, 1, "recvmmsg datagram", -EAGAIN, "recvmmsg", "recvmmsg mod:in:edge"},
        {IO_READ, -ECONNREFUSED, "recvmmsg failed:ECONNREFUSED", 0, "recvmmsg", "recvmmsg mod:in:edge"},
        {IO_WRITE, 1, "sendto sent:1 sendto", -EAGAIN, "sendto sent:-11", "sendto sent:-11 mod:out:edge"},
        {IO_WRITE, -ECONNREFUSED, "sendto sent:-111", -EAGAIN, "sendto sent:-11", "sendto sent:-11 mod:out:edge"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OWN(io);
        add(io, &datagrams, FIRST_FD);
        assert_int_equal(tram__datagrams_prepare(io, false), 0);
        assert_int_equal(tram__io_watch(io, cases[i].wanted), 0);
        assert_asked(cases[i].wanted == IO_READ ? "add:in" : "add:out");
        for (int ticks = 0; ticks < 3; ticks++) {
            kernel.results[kernel.result % 8] = cases[i].first;
            kernel.results[(kernel.result + 1) % 8] = -EAGAIN;
            tick_with(io, EPOLLIN | EPOLLOUT | EPOLLHUP, cases[i].told);
        }
        for (size_t k = 0; k < 8; k++)
            kernel.results[k] = cases[i].nothing;
        tick_with(io, EPOLLIN | EPOLLOUT | EPOLLHUP, cases[i].call);
        tick_with(io, EPOLLIN | EPOLLOUT | EPOLLHUP, cases[i].edge);
        tram__io_remove(io);
        assert_asked("del");
    }
}

/* ---- Receiving ---- */

static void test_what_a_receive_gives_is_told_and_counted(void **state) {
    (void)state;
    static const struct {
        ssize_t results[3];
        const char *told;
        unsigned reads, bytes;
    } cases[] = {
        {{5}, "received:some", 1, 5},
        {{0}, "received:0", 1, 0},
        {{-EAGAIN}, "", 0, 0},
        {{-ECONNRESET}, "failed:ECONNRESET", 0, 0},
        {{-EINTR, 3}, "received:some", 1, 3},
        {{-EINTR, -EINTR, 0}, "received:0", 1, 0},
        {{-EINTR, -EAGAIN}, "", 0, 0},
        {{-EINTR, -ECONNRESET}, "failed:ECONNRESET", 0, 0},
    };
    for (int no_socket = 0; no_socket < 2; no_socket++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            for (uint32_t events = EPOLLIN; events; events = events == EPOLLIN ? EPOLLIN | EPOLLRDHUP : 0) {
                OWN(io);
                tram_stats before, now;
                char expected[64] = "";
                add(io, &stream, FIRST_FD);
                io->flags |= no_socket ? IO_NO_SOCKET : 0;
                assert_int_equal(io_receive_start(io), 0);
                world->trace[0] = '\0';
                kernel.result = 0;
                memcpy(kernel.results, cases[i].results, sizeof cases[i].results);
                tram_loop_stats(world->loop, &before);
                happens(io, events);
                run_ticks(world, 1);
                tram_loop_stats(world->loop, &now);
                for (size_t k = 0; k < 3; k++) {
                    strcat(expected, k ? " " : "");
                    strcat(expected, no_socket ? "read" : "recv");
                    if (cases[i].results[k] != -EINTR)
                        break;
                }
                strcat(expected, *cases[i].told ? " " : "");
                strcat(expected, cases[i].told);
                assert_trace(world, expected);
                assert_int_equal(now.reads - before.reads, cases[i].reads);
                assert_int_equal(now.bytes_received - before.bytes_received, cases[i].bytes);
                tram__io_remove(io);
                assert_asked("del");
            }
}

static int no_memory_now(struct io *io, void **ret_memory, size_t *ret_size) {
    (void)io;
    (void)ret_memory;
    (void)ret_size;
    return -1;
}

static void test_who_gives_no_memory_does_not_receive_now(void **state) {
    (void)state;
    static const struct io_receiver reluctant = {.buffer = no_memory_now, .received = on_received};
    OWN(io);
    add(io, &stream, FIRST_FD);
    io->receiver = &reluctant;
    assert_int_equal(io_receive_start(io), 0);
    assert_asked("add:in");
    tick_with(io, EPOLLIN, "");
    for (int i = 0; i < 3; i++)
        tick_with(io, EPOLLIN | EPOLLHUP, ""); /* it has been asked */
    tram__io_remove(io);
    assert_asked("del");
}

/* ---- Accepting ---- */

static void accept_no_more(struct io *io) {
    tram__io_accept_stop(io);
}

static void end_listener(struct io *io) {
    tram__io_remove(io);
}

static void test_V_9_a_batch_ends_where_it_should(void **state) {
    (void)state;
    static const struct {
        ssize_t results[6];
        uint32_t limit;
        void (*then)(struct io *io);
        unsigned accepted;
        const char *told;
    } cases[] = {
        {{7, 8, -EAGAIN}, 10, NULL, 2, "accept accepted accept accepted accept"},
        {{7, 8, 9}, 2, NULL, 2, "accept accepted accept accepted"},
        {{7, -ECONNABORTED, 8, -EAGAIN}, 10, NULL, 2, "accept accepted accept accept accepted accept"},
        {{-ECONNABORTED, -ECONNABORTED}, 2, NULL, 0, "accept accept"},
        {{7, -EINTR, 8}, 10, NULL, 1, "accept accepted accept"},
        {{-EMFILE, 7}, 10, NULL, 0, "accept failed:EMFILE"},
        {{7, -EPERM, 8}, 10, NULL, 1, "accept accepted accept failed:EPERM"},
        {{7, 8}, 10, accept_no_more, 1, "accept accepted mod"},
        {{7, 8}, 10, end_listener, 1, "accept accepted del"},
        {{7}, 0, NULL, 0, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint32_t events = EPOLLIN; events; events = events == EPOLLIN ? EPOLLIN | EPOLLHUP : 0) {
            OWN(io);
            tram_stats before, now;
            add(io, &listener, FIRST_FD);
            assert_int_equal(tram__io_accept_start(io), 0);
            assert_asked("add:in");
            kernel.result = 0;
            memcpy(kernel.results, cases[i].results, sizeof cases[i].results);
            accept_limit = cases[i].limit;
            on_accept = cases[i].then;
            tram_loop_stats(world->loop, &before);
            happens(io, events);
            run_ticks(world, 1);
            tram_loop_stats(world->loop, &now);
            assert_trace(world, cases[i].told);
            assert_int_equal(now.accepted - before.accepted, cases[i].accepted);
            on_accept = NULL;
            tram__io_remove(io);
            world->trace[0] = '\0';
        }
}

/* A listener with lasting trouble is left alone as soon as accepting tells nobody anything. */
static void test_V_12_a_listener_that_gives_nothing_becomes_edge_triggered(void **state) {
    (void)state;
    OWN(io);
    add(io, &listener, FIRST_FD);
    accept_limit = 4;
    assert_int_equal(tram__io_accept_start(io), 0);
    assert_asked("add:in");
    for (size_t i = 0; i < 8; i++)
        kernel.results[i] = -EAGAIN;
    tick_with(io, EPOLLHUP, "accept");
    tick_with(io, EPOLLHUP, "accept mod:in:edge");
    kernel.results[kernel.result % 8] = -EINVAL; /* told: it may go on so */
    happens_newly(io, EPOLLHUP);
    run_ticks(world, 1);
    assert_trace(world, "accept failed:EINVAL mod:in");
    tram__io_remove(io);
    assert_asked("del");
}

/* ---- Waiting ---- */

static int stop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

/* For how long the loop waits that has but one timer. */
static void assert_waits(uint64_t delay_ns, uint64_t expected_ns) {
    assert_int_equal(tram_loop_call_at(world->loop, kernel.now_ns + delay_ns, stop, NULL, NULL, NULL), 0);
    kernel.asked_ns = 0;
    assert_int_equal(tram_loop_run_forever(world->loop), 0);
    assert_int_equal(kernel.asked_ns, expected_ns);
}

static void test_L_6_the_wait_is_as_long_as_the_next_timer_is_away(void **state) {
    (void)state;
    static const uint64_t delays[] = {1, 999999, 1000000, 1500000, 999999999, 1000000000, 1000000001, 3600000000007};
    for (size_t i = 0; i < sizeof delays / sizeof *delays; i++)
        assert_waits(delays[i], delays[i]);
    assert_waits(0, 0);
    assert_waits(25ull * 3600 * 1000000000, 3600ull * 1000000000); /* the rest of a wait that was cut */
}

/* Before Linux 5.11: whole milliseconds, of which a timer needs as many as bring it past its time. */
static void test_L_6_where_the_kernel_counts_milliseconds_they_are_rounded_up(void **state) {
    (void)state;
    static const struct {
        uint64_t delay_ns, ms;
    } cases[] = {{1, 1}, {999999, 1}, {1000000, 1}, {1000001, 2}, {1500000, 2}, {2000000, 2}, {61000000001, 61001}};
    kernel.no_pwait2 = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_waits(cases[i].delay_ns, cases[i].ms * 1000000);
    assert_int_equal(kernel.pwaits2, 1); /* asked once */
    assert_waits(0, 0);
}

/* Whose number the poller's is, nobody knows, once the kernel says that it is none. */
static void test_L_44_a_poller_that_was_lost_is_not_closed(void **state) {
    (void)state;
    static const struct {
        int error;
        unsigned closes;
    } cases[] = {{EBADF, 0}, {EINVAL, 0}, {ENOMEM, 1}, {EINTR, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int poller = tram_loop_backend_fd(world->loop);
        kernel.poller = poller;
        kernel.poller_closes = 0;
        kernel.wait_error = cases[i].error;
        tram_loop_stop(world->loop);
        assert_int_equal(tram_loop_run_forever(world->loop), cases[i].error == EINTR ? 0 : -cases[i].error);
        kernel.wait_error = 0;
        world_use_sys(world, &sys);
        assert_int_equal(kernel.poller_closes, cases[i].closes);
        if (!cases[i].closes)
            tram__sys.close(poller);
    }
    kernel.poller = -1;
}

static void end_once(struct io *io, unsigned events) {
    trace(world, "%s", events ? "ready" : "nothing");
    tram__io_remove(io);
}

/* Nothing more is asked of a descriptor that its owner has given up within. */
static void test_who_ends_within_an_event_is_not_looked_at_any_more(void **state) {
    (void)state;
    static const struct io_kind ending = {.name = "ending", .ready = end_once};
    static const uint32_t events[] = {EPOLLERR, EPOLLIN | EPOLLERR, EPOLLHUP, EPOLLIN | EPOLLRDHUP};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        OWN(io);
        add(io, &ending, FIRST_FD);
        assert_int_equal(tram__io_watch(io, IO_READ | IO_ONCE), 0);
        assert_asked("add:in:once");
        kernel.domain = AF_INET;
        kernel.records = 5;
        tick_with(io, events[i], "ready del");
        assert_int_equal(kernel.records_read, 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_wanted_is_what_is_asked),
        TEST(test_a_shared_listener_is_asked_for_exclusively),
        TEST(test_a_change_that_fails_is_made_in_the_other_way_or_told),
        TEST(test_renewing_tells_another_file_from_the_same),
        TEST(test_each_event_is_told_to_who_wants_it),
        TEST(test_a_hang_up_is_told_before_all_else),
        TEST(test_L_2_what_is_wanted_anew_takes_no_event_of_this_tick),
        TEST(test_L_43_lasting_trouble_becomes_edge_triggered),
        TEST(test_L_43_where_that_is_refused_the_kernel_forgets_it),
        TEST(test_what_nobody_wants_is_not_asked_for_any_more),
        TEST(test_P_10_an_error_is_told_to_who_hears_it),
        TEST(test_D_25_an_error_queue_is_emptied_up_to_what_a_call_tells),
        TEST(test_L_43_trouble_and_nothing_to_do_is_no_work),
        TEST(test_L_43_trouble_of_datagrams_and_nothing_to_do_is_no_work),
        TEST(test_what_a_receive_gives_is_told_and_counted),
        TEST(test_who_gives_no_memory_does_not_receive_now),
        TEST(test_V_9_a_batch_ends_where_it_should),
        TEST(test_V_12_a_listener_that_gives_nothing_becomes_edge_triggered),
        TEST(test_L_44_a_poller_that_was_lost_is_not_closed),
        TEST(test_who_ends_within_an_event_is_not_looked_at_any_more),
        TEST(test_L_6_the_wait_is_as_long_as_the_next_timer_is_away),
        TEST(test_L_6_where_the_kernel_counts_milliseconds_they_are_rounded_up),
    };
    return cmocka_run_group_tests_name("epoll", tests, NULL, NULL);
}
