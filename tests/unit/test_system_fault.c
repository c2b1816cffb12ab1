/* Fault plans by themselves: what is counted, what fails when, what a loop makes of it. */
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/memory.h"
#include "support/support.h"

#include "core/base/memory.h"
#include "core/system/fault.h"

static int setup(void **state) {
    tram_faults *faults = NULL;
    calls_uninterrupted();
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    *state = faults;
    return 0;
}

static int teardown(void **state) {
    tram_faults_free(*state);
    return 0;
}

static void test_kinds_have_names(void **state) {
    (void)state;
    assert_string_equal(tram_fault_kind_name(TRAM_FAULT_ALLOCATE), "allocate");
    assert_string_equal(tram_fault_kind_name(TRAM_FAULT_RECV), "recv");
    assert_string_equal(tram_fault_kind_name(TRAM_FAULT_CLOSE), "close");
    assert_string_equal(tram_fault_kind_name(TRAM_FAULT_EVENTFD), "eventfd");
    for (unsigned kind = 0; kind <= TRAM_FAULT_EVENTFD; kind++)
        assert_non_null(tram_fault_kind_name((tram_fault_kind)kind));
    assert_null(tram_fault_kind_name((tram_fault_kind)(TRAM_FAULT_EVENTFD + 1)));
}

/* A call that is new in the table needs a kind of its own, or it could not fail. */
static void test_every_call_but_the_clock_has_a_kind(void **state) {
    const struct sys *sys = tram__faults_sys(*state);
    size_t count = sizeof *sys / sizeof(void (*)(void)), real = 0;
    for (size_t i = 0; i < count; i++)
        real += memcmp((const char *)sys + i * sizeof(void (*)(void)),
                       (const char *)&tram__sys + i * sizeof(void (*)(void)), sizeof(void (*)(void))) == 0;
    assert_ptr_equal(sys->clock_gettime, tram__sys.clock_gettime);
    assert_int_equal(real, 1);
}

static void test_only_the_calls_that_were_meant_fail(void **state) {
    tram_faults *faults = *state;
    const struct sys *sys = tram__faults_sys(faults);
    static const bool fails[] = {false, false, true, true, false};
    int level = 0;
    socklen_t size = sizeof level;
    int fds[2];
    unix_pair(fds);
    sys->getsockopt(fds[0], SOL_SOCKET, SO_TYPE, &level, &size); /* nth counts from the order on */
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_GETSOCKOPT, 3, 2, ENOBUFS), 0);
    for (size_t i = 0; i < 5; i++) {
        int status = sys->getsockopt(fds[0], SOL_SOCKET, SO_TYPE, &level, &size);
        assert_int_equal(status, fails[i] ? -1 : 0);
        assert_true(!fails[i] || errno == ENOBUFS);
        assert_int_equal(sys->shutdown(fds[0], SHUT_WR), 0); /* other kinds go on */
    }
    assert_int_equal(tram_faults_calls(faults, TRAM_FAULT_GETSOCKOPT), 6);
    assert_int_equal(tram_faults_calls(faults, TRAM_FAULT_SHUTDOWN), 5);
    assert_int_equal(tram_faults_injected(faults), 2);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_GETSOCKOPT, 1, TRAM_FAULT_ALWAYS, ENOBUFS), 0);
    assert_int_equal(sys->getsockopt(fds[0], SOL_SOCKET, SO_TYPE, &level, &size), -1);
    tram_faults_reset(faults);
    assert_int_equal(tram_faults_calls(faults, TRAM_FAULT_GETSOCKOPT), 0);
    assert_int_equal(tram_faults_injected(faults), 0);
    assert_int_equal(sys->getsockopt(fds[0], SOL_SOCKET, SO_TYPE, &level, &size), 0);
    close(fds[0]);
    close(fds[1]);
}

/* The one that gives its error back, and may leave errno as it is. */
static void test_a_child_that_was_to_fail_is_not_started(void **state) {
    tram_faults *faults = *state;
    const struct sys *sys = tram__faults_sys(faults);
    char name[] = "true", *argv[] = {name, NULL}, *env[] = {NULL};
    pid_t pid = -7;
    int status;
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_POSIX_SPAWN, 1, 1, EAGAIN), 0);
    assert_int_equal(sys->posix_spawn(&pid, "/bin/true", NULL, NULL, argv, env), EAGAIN);
    assert_int_equal(pid, -7);
    assert_int_equal(sys->posix_spawn(&pid, "/bin/true", NULL, NULL, argv, env), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_short_calls_move_what_they_may(void **state) {
    tram_faults *faults = *state;
    const struct sys *sys = tram__faults_sys(faults);
    struct iovec pieces[3] = {{"ab", 2}, {"cde", 3}, {"f", 1}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 3};
    char bytes[32];
    int fds[2];
    unix_pair(fds);
    assert_int_equal(tram_faults_shorten(faults, TRAM_FAULT_SENDMSG, 1, 1, 4), 0);
    assert_int_equal(tram_faults_shorten(faults, TRAM_FAULT_WRITEV, 1, 1, 1), 0);
    assert_int_equal(tram_faults_shorten(faults, TRAM_FAULT_SEND, 1, 1, 100), 0);
    assert_int_equal(sys->sendmsg(fds[0], &message, MSG_NOSIGNAL), 4);
    assert_int_equal(sys->sendmsg(fds[0], &message, MSG_NOSIGNAL), 6);
    assert_int_equal(sys->writev(fds[0], pieces, 3), 1);
    assert_int_equal(tram_faults_injected(faults), 2);
    assert_int_equal(sys->send(fds[0], "xyz", 3, MSG_NOSIGNAL), 3); /* it asked for less: untouched */
    assert_int_equal(tram_faults_injected(faults), 2);
    assert_int_equal(tram_faults_shorten(faults, TRAM_FAULT_RECV, 2, 1, 5), 0);
    assert_int_equal(sys->recv(fds[1], bytes, 2, 0), 2);
    assert_int_equal(sys->recv(fds[1], bytes + 2, sizeof bytes - 2, 0), 5);
    struct iovec room[2] = {{bytes + 7, 2}, {bytes + 9, sizeof bytes - 9}};
    struct msghdr incoming = {.msg_iov = room, .msg_iovlen = 2};
    assert_int_equal(tram_faults_shorten(faults, TRAM_FAULT_RECVMSG, 1, 1, 3), 0);
    assert_int_equal(sys->recvmsg(fds[1], &incoming, 0), 3);
    assert_ptr_equal(incoming.msg_iov, room);
    assert_int_equal(room[1].iov_len, sizeof bytes - 9);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_RECVMSG, 1, 1, EINTR), 0);
    assert_int_equal(sys->recvmsg(fds[1], &incoming, 0), -1);
    assert_int_equal(errno, EINTR);
    assert_int_equal(sys->recv(fds[1], bytes + 10, sizeof bytes - 10, 0), 4);
    assert_memory_equal(bytes, "abcdabcdefaxyz", 14);
    close(fds[0]);
    close(fds[1]);
}

static void test_what_has_no_pieces_moves_nothing(void **state) {
    const struct sys *sys = tram__faults_sys(*state);
    struct msghdr none = {0};
    int fds[2], pipes[2];
    unix_pair(fds);
    assert_int_equal(pipe2(pipes, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(sys->sendmsg(fds[0], &none, MSG_NOSIGNAL), 0);
    assert_int_equal(sys->send(fds[0], "a", 1, MSG_NOSIGNAL), 1);
    assert_int_equal(sys->recvmsg(fds[1], &none, 0), 0);
    assert_int_equal(sys->writev(pipes[1], NULL, 0), 0);
    assert_int_equal(sys->pwritev2(pipes[1], NULL, 0, -1, 0), 0);
    for (size_t i = 0; i < 2; i++) {
        close(fds[i]);
        close(pipes[i]);
    }
}

static void test_closed_is_closed_whatever_close_says(void **state) {
    tram_faults *faults = *state;
    int before = open_descriptors(), fds[2];
    unix_pair(fds);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_CLOSE, 1, 2, EINTR), 0);
    assert_int_equal(tram__faults_sys(faults)->close(fds[0]), -1);
    assert_int_equal(errno, EINTR);
    assert_int_equal(tram__faults_sys(faults)->close(fds[1]), -1);
    assert_int_equal(open_descriptors(), before);
}

static void test_an_interrupted_connect_goes_on(void **state) {
    tram_faults *faults = *state;
    uint16_t port;
    int listener = tcp_listener(4, &port), fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_CONNECT, 1, 1, EINTR), 0);
    assert_int_equal(tram__faults_sys(faults)->connect(fd, (struct sockaddr *)&address, size), -1);
    assert_int_equal(errno, EINTR);
    await_events(listener, POLLIN);
    close_with_reset(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(tram__faults_sys(faults)->connect(fd, (struct sockaddr *)&address, size), 0);
    close_with_reset(fd);
    close(listener);
}

static void test_memory_fails_and_is_counted(void **state) {
    tram_faults *faults = *state;
    tram_loop_options options = {.faults = faults};
    tram_allocator allocator;
    size_t blocks, bytes;
    assert_int_equal(tram__faults_allocator(&options, &allocator), 0);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_ALLOCATE, 2, 1, ENOMEM), 0);
    void *first = memory_get(&allocator, 10), *second = memory_get(&allocator, 20), *third = memory_get(&allocator, 30);
    assert_true(first && !second && third);
    tram_faults_memory(faults, &blocks, &bytes);
    assert_int_equal(blocks, 2);
    assert_int_equal(bytes, 40);
    memory_put(&allocator, first, 10);
    memory_put(&allocator, third, 30);
    tram_faults_memory(faults, &blocks, &bytes);
    assert_int_equal(blocks + bytes, 0);
    tram_faults_memory(faults, NULL, NULL);
}

static void test_bad_orders_are_refused(void **state) {
    tram_faults *faults = *state, *second = NULL;
    tram_allocator none = {0};
    assert_int_equal(tram_faults_new(NULL, &second), TRAM_ESTATE);
    assert_int_equal(tram_faults_new(&none, &second), TRAM_EVALUE);
    memory_fail(1, 1);
    assert_int_equal(tram_faults_new(NULL, &second), -ENOMEM);
    memory_fail(0, 0);
    assert_null(second);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_RECV, 0, 1, EIO), TRAM_EVALUE);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_RECV, 1, 1, 0), TRAM_EVALUE);
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_RECV, 1, 1, -EIO), TRAM_EVALUE);
    assert_int_equal(tram_faults_fail(faults, (tram_fault_kind)1000, 1, 1, EIO), TRAM_EVALUE);
    assert_int_equal(tram_faults_shorten(faults, TRAM_FAULT_BIND, 1, 1, 1), TRAM_EVALUE);
    assert_int_equal(tram_faults_shorten(faults, TRAM_FAULT_RECV, 1, 1, 0), TRAM_EVALUE);
    for (unsigned kind = TRAM_FAULT_EVENTFD + 1; kind < TRAM_FAULT_EVENTFD + 3; kind++) { /* behind the last */
        assert_int_equal(tram_faults_fail(faults, (tram_fault_kind)kind, 1, 1, EIO), TRAM_EVALUE);
        assert_int_equal(tram_faults_calls(faults, (tram_fault_kind)kind), 0);
    }
    assert_int_equal(tram_faults_calls(faults, (tram_fault_kind)1000), 0);
    tram_loop_options options = {.faults = faults, .allocator = &tram__memory_default};
    tram_loop *loop = NULL;
    assert_int_equal(tram_loop_new(&options, &loop), TRAM_EVALUE);
    assert_null(loop);
}

/* Every allocation and every call of making a loop, each time it is made. */
static void test_X_1_a_loop_is_made_or_not(void **state) {
    tram_faults *faults = *state;
    tram_loop_options options = {.faults = faults};
    static const tram_fault_kind kinds[] = {TRAM_FAULT_ALLOCATE, TRAM_FAULT_EPOLL_CREATE1, TRAM_FAULT_EVENTFD,
                                            TRAM_FAULT_EPOLL_CTL};
    static const int errors[] = {ENOMEM, EMFILE, ENFILE, ENOSPC};
    static const unsigned at_least[] = {3, 1, 1, 1};
    int descriptors = open_descriptors();
    for (size_t i = 0; i < 4; i++) {
        unsigned failed = 0;
        for (uint64_t n = 1;; n++) {
            tram_loop *loop = NULL;
            size_t blocks;
            tram_faults_reset(faults);
            assert_int_equal(tram_faults_fail(faults, kinds[i], n, 1, errors[i]), 0);
            int status = tram_loop_new(&options, &loop);
            assert_int_equal(status, tram_faults_injected(faults) ? -errors[i] : 0);
            assert_int_equal(loop != NULL, status == 0);
            tram_loop_free(loop);
            tram_faults_memory(faults, &blocks, NULL);
            assert_int_equal(blocks, 0);
            assert_int_equal(open_descriptors(), descriptors);
            if (!status)
                break;
            failed++;
        }
        assert_true(failed >= at_least[i]);
    }
}

static void test_a_loop_without_a_plan_is_untouched(void **state) {
    tram_faults *faults = *state;
    assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_EVENTFD, 1, TRAM_FAULT_ALWAYS, EMFILE), 0);
    tram_loop *loop;
    assert_int_equal(tram_loop_new(NULL, &loop), 0);
    tram_loop_free(loop);
    assert_int_equal(tram_faults_calls(faults, TRAM_FAULT_EVENTFD), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_kinds_have_names),
        TEST(test_every_call_but_the_clock_has_a_kind),
        TEST(test_only_the_calls_that_were_meant_fail),
        TEST(test_a_child_that_was_to_fail_is_not_started),
        TEST(test_short_calls_move_what_they_may),
        TEST(test_what_has_no_pieces_moves_nothing),
        TEST(test_closed_is_closed_whatever_close_says),
        TEST(test_an_interrupted_connect_goes_on),
        TEST(test_memory_fails_and_is_counted),
        TEST(test_bad_orders_are_refused),
        TEST(test_X_1_a_loop_is_made_or_not),
        TEST(test_a_loop_without_a_plan_is_untouched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
