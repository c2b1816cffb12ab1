/* sendfile on plain sockets (docs/rules.md, F-11 with what it shares with F-1 to F-13). */
#include "support/faults.h"
#include "support/stream.h"
#include "support/support.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/loop/loop.h"

static int pattern_file(size_t size) {
    int file = memfd_create("tram-test", MFD_CLOEXEC);
    assert_true(file >= 0);
    char *bytes = malloc(size + 1);
    pattern(bytes, size, 0);
    for (size_t done = 0; done < size;) {
        ssize_t wrote = write(file, bytes + done, size - done);
        assert_true(wrote > 0);
        done += (size_t)wrote;
    }
    free(bytes);
    lseek(file, 1, SEEK_SET);
    return file;
}

static off_t position(int file) {
    return lseek(file, 0, SEEK_CUR);
}

static const tram_sendfile_options no_fallback = {.no_fallback = true};

static tram_future *send_file(struct world *world, int fd, int file, int64_t offset, int64_t count) {
    tram_future *future = NULL;
    assert_int_equal(tram_loop_sock_sendfile(world->loop, fd, file, offset, count, NULL, &future), 0);
    return future;
}

static bool is_done(void *arg) {
    return tram_future_done(arg);
}

static void expect(struct world *world, tram_future *future, int status, size_t sent) {
    void *value = NULL;
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_result(future, &value), status);
    assert_int_equal((uintptr_t)value, sent);
    tram_future_release(future);
}

static void read_file(struct world *world, int fd, size_t size, size_t offset) {
    struct stream stream = {.world = world, .peer = fd};
    read_pattern(&stream, size, offset);
}

static bool nothing_registered(struct world *world, int fd) {
    return tram_loop_remove_reader(world->loop, fd) == 0 && tram_loop_remove_writer(world->loop, fd) == 0;
}

static void test_F_11_F_1_F_2_F_3_F_4_sends_a_part_of_a_file(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    int pair[2], file = pattern_file(3000000);
    tcp_pair(pair);
    tram_future *future = send_file(world, pair[0], file, 1000, 2000000);
    read_file(world, pair[1], 2000000, 1000);
    expect(world, future, 0, 2000000);
    assert_int_equal(position(file), 2001000);
    lseek(file, 5, SEEK_SET);
    future = send_file(world, pair[0], file, 0, TRAM_SENDFILE_ALL);
    read_file(world, pair[1], 3000000, 0);
    expect(world, future, 0, 3000000);
    assert_int_equal(position(file), 3000000);
    future = send_file(world, pair[0], file, 2999990, 100);
    assert_true(tram_future_done(future)); /* O-3 */
    expect(world, future, 0, 10);
    lseek(file, 5, SEEK_SET);
    expect(world, send_file(world, pair[0], file, 3000000, 100), 0, 0);
    assert_int_equal(position(file), 5);
    assert_null(world->loop->executor);
    assert_true(nothing_registered(world, pair[0]));
    close(file);
    close(pair[0]);
    close(pair[1]);
}

static void test_F_11_F_2_bad_arguments_are_refused(void **state) {
    struct world *world = *state;
    tram_loop *loop = world->loop;
    int pair[2], file = pattern_file(10), datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    unix_pair(pair);
    tram_future *future = NULL;
    tram_sendfile_options reserved = {.reserved = {1}};
    assert_wrong(tram_loop_sock_sendfile(loop, pair[0], file, -1, 10, NULL, &future), "offset");
    assert_wrong(tram_loop_sock_sendfile(loop, pair[0], file, 0, 0, NULL, &future), "count");
    assert_wrong(tram_loop_sock_sendfile(loop, pair[0], file, 0, 10, &reserved, &future), "reserved");
    assert_int_equal(tram_loop_sock_sendfile(loop, pair[0], 100000, 0, 10, NULL, &future), -EBADF);
    assert_int_equal(tram_loop_sock_sendfile(loop, datagrams, file, 0, 10, NULL, &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_sock_sendfile(loop, file, file, 0, 10, NULL, &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_sock_sendfile(loop, -1, file, 0, 10, NULL, &future), -EBADF);
    assert_null(future);
    close(datagrams);
    close(file);
    close(pair[0]);
    close(pair[1]);
}

/* The most that was sent at once: blocks as they were read. */
static struct {
    struct sys sys;
    size_t largest;
} sends;

static ssize_t measured_send(int fd, const void *data, size_t size, int flags) {
    if (size > sends.largest)
        sends.largest = size;
    return tram__sys.send(fd, data, size, flags);
}

static int setup_measured(void **state) {
    world_setup(state);
    sends.sys = *faults_sys();
    sends.sys.send = measured_send;
    sends.largest = 0;
    world_use_sys(*state, &sends.sys);
    return 0;
}

static void test_F_11_F_8_blocks_of_256_KiB_where_the_kernel_refuses(void **state) {
    struct world *world = *state;
    int pair[2], file = pattern_file(1000000);
    unix_pair(pair);
    tram_future *future;
    fail_next(&faults.sendfile, EINVAL, 1);
    assert_int_equal(tram_loop_sock_sendfile(world->loop, pair[0], file, 0, 1000000, &no_fallback, &future), 0);
    expect(world, future, TRAM_ENOSENDFILE, 0);
    assert_int_equal(position(file), 1);
    fail_next(&faults.sendfile, EINVAL, 1);
    future = send_file(world, pair[0], file, 10, TRAM_SENDFILE_ALL);
    read_file(world, pair[1], 999990, 10);
    expect(world, future, 0, 999990);
    assert_int_equal(sends.largest, 256 * 1024);
    assert_int_equal(position(file), 1000000);
    assert_true(nothing_registered(world, pair[0]));

    int through[2];
    assert_int_equal(pipe2(through, O_CLOEXEC), 0);
    char bytes[1000];
    pattern(bytes, sizeof bytes, 0);
    assert_int_equal(write(through[1], bytes, sizeof bytes), sizeof bytes);
    future = send_file(world, pair[0], through[0], 0, 300);
    expect(world, future, 0, 300);
    close(through[1]);
    expect(world, send_file(world, pair[0], through[0], 0, TRAM_SENDFILE_ALL), 0, 700);
    read_file(world, pair[1], 1000, 0);
    close(through[0]);

    int folder = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    expect(world, send_file(world, pair[0], folder, 0, TRAM_SENDFILE_ALL), -EISDIR, 0);
    close(folder);
    close(file);
    close(pair[0]);
    close(pair[1]);
}

static void test_F_11_F_10_F_4_a_lost_connection(void **state) {
    struct world *world = *state;
    int file = pattern_file(8 << 20);
    for (int blocks = 0; blocks < 2; blocks++) {
        int pair[2];
        tcp_pair(pair);
        lseek(file, 0, SEEK_SET);
        if (blocks)
            fail_next(&faults.sendfile, EINVAL, 1);
        tram_future *future = send_file(world, pair[0], file, 0, TRAM_SENDFILE_ALL);
        read_file(world, pair[1], 500000, 0);
        close_with_reset(pair[1]);
        expect(world, future, -ECONNRESET, 0);
        assert_true(position(file) >= 500000);
        /* By now sending is a broken pipe, which is the same to the user. */
        expect(world, send_file(world, pair[0], file, 0, TRAM_SENDFILE_ALL), -ECONNRESET, 0);
        close(pair[0]);
    }
    close(file);
}

static void test_F_11_F_12_O_5_cancelling_leaves_the_socket_open(void **state) {
    struct world *world = *state;
    int pair[2], file = pattern_file(1000000);
    unix_pair(pair);
    for (int blocks = 0; blocks < 3; blocks++) {
        lseek(file, 3, SEEK_SET);
        if (blocks)
            fail_next(&faults.sendfile, EINVAL, 1);
        tram_future *future = send_file(world, pair[0], file, 0, TRAM_SENDFILE_ALL);
        if (blocks < 2) {
            /* Until the socket is full; with blocks 2 the first is being read. */
            char byte;
            while (recv(pair[1], &byte, 1, MSG_PEEK) != 1)
                run_ticks(world, 1);
            run_to_rest(world);
        }
        assert_int_equal(tram_future_cancel(future), 1);
        expect(world, future, TRAM_ECANCELLED, 0);
        assert_true(nothing_registered(world, pair[0]));
        off_t sent = position(file);
        if (blocks == 2)
            assert_int_equal(sent, 3);
        else
            read_file(world, pair[1], (size_t)sent, 0);
        assert_int_equal(write(pair[0], "abc", 3), 3);
        char bytes[3];
        assert_int_equal(read(pair[1], bytes, 3), 3);
        assert_memory_equal(bytes, "abc", 3);
    }
    close(file);
    close(pair[0]);
    close(pair[1]);
}

/* The read goes on in its thread after the cancel: it has its own descriptor, so that the file's is the user's again.
 */
static void test_F_11_F_12_after_a_cancel_the_file_may_be_closed(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    for (int times = 0; times < 100; times++) {
        int file = pattern_file(100000);
        fail_next(&faults.sendfile, EINVAL, 1);
        tram_future *future = send_file(world, pair[0], file, 0, TRAM_SENDFILE_ALL);
        assert_int_equal(tram_future_cancel(future), 1);
        close(file);
        expect(world, future, TRAM_ECANCELLED, 0);
    }
    assert_true(nothing_registered(world, pair[0]));
    close(pair[0]);
    close(pair[1]);
}

static void test_F_11_F_13_one_system_call_per_event(void **state) {
    struct world *world = *state;
    int pair[2], file = pattern_file(8 << 20);
    tcp_pair(pair);
    tram_future *future = send_file(world, pair[0], file, 0, TRAM_SENDFILE_ALL);
    struct stream stream = {.world = world, .peer = pair[1]};
    while (!tram_future_done(future)) {
        unsigned calls = faults.sendfile.calls;
        drain_peer(&stream);
        run_ticks(world, 1);
        assert_true(faults.sendfile.calls - calls <= 1);
    }
    assert_true(faults.sendfile_most <= 1 << 20);
    expect(world, future, 0, 8 << 20);
    close(file);
    close(pair[0]);
    close(pair[1]);
}

static void test_O_15_closing_the_descriptor_fails_it(void **state) {
    struct world *world = *state;
    int pair[2], file = pattern_file(1000000);
    unix_pair(pair);
    tram_future *future = send_file(world, pair[0], file, 0, TRAM_SENDFILE_ALL);
    run_ticks(world, 1);
    close(pair[0]);
    expect(world, future, -EBADF, 0);
    assert_true(position(file) > 1);
    close(pair[1]);
    close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)
        CASE(test_F_11_F_1_F_2_F_3_F_4_sends_a_part_of_a_file),
        CASE(test_F_11_F_2_bad_arguments_are_refused),
        cmocka_unit_test_setup_teardown(test_F_11_F_8_blocks_of_256_KiB_where_the_kernel_refuses, setup_measured,
                                        world_teardown),
        CASE(test_F_11_F_10_F_4_a_lost_connection),
        CASE(test_F_11_F_12_O_5_cancelling_leaves_the_socket_open),
        CASE(test_F_11_F_12_after_a_cancel_the_file_may_be_closed),
        CASE(test_F_11_F_13_one_system_call_per_event),
        CASE(test_O_15_closing_the_descriptor_fails_it),
    };
    return cmocka_run_group_tests_name("sock_sendfile", tests, NULL, NULL);
}
