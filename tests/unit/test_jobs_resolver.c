/*
 * The resolver's answers come from here: names that end in .test have the answers below, numbers go to the C library,
 * and no name server is ever asked.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>

#include "core/loop/loop.h"
#include "support/support.h"

static sem_t entered, open_gate;
static _Atomic int interruptions, freed;

static struct sockaddr_in address_a = {.sin_family = AF_INET}, address_b = {.sin_family = AF_INET};
static struct addrinfo answer_b = {
    .ai_family = AF_INET, .ai_addr = (struct sockaddr *)&address_b, .ai_addrlen = sizeof address_b};
static struct addrinfo answer_a = {.ai_family = AF_INET,
                                   .ai_addr = (struct sockaddr *)&address_a,
                                   .ai_addrlen = sizeof address_a,
                                   .ai_next = &answer_b};

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret_result) {
    if (!host || !strstr(host, ".test")) {
        int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
        *(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
        return next(host, port, hints, ret_result);
    }
    *ret_result = NULL;
    if (strcmp(host, "empty.test") == 0)
        return 0;
    if (strcmp(host, "memory.test") == 0)
        return EAI_MEMORY;
    if (strcmp(host, "system.test") == 0) {
        errno = EMFILE;
        return EAI_SYSTEM;
    }
    if (strcmp(host, "interrupted.test") == 0 && interruptions-- > 0) {
        errno = EINTR;
        return EAI_SYSTEM;
    }
    if (strcmp(host, "unknown.test") == 0)
        return EAI_NONAME;
    if (strcmp(host, "blocked.test") == 0) {
        sem_post(&entered);
        while (sem_wait(&open_gate))
            continue;
    }
    *ret_result = &answer_a;
    return 0;
}

void freeaddrinfo(struct addrinfo *result) {
    if (result == &answer_a) {
        freed++;
        return;
    }
    void (*next)(struct addrinfo *);
    *(void **)&next = dlsym(RTLD_NEXT, "freeaddrinfo");
    next(result);
}

static int setup(void **state) {
    sem_init(&entered, 0, 0);
    sem_init(&open_gate, 0, 0);
    interruptions = freed = 0;
    return world_setup(state);
}

static int teardown(void **state) {
    int status = world_teardown(state);
    sem_destroy(&entered);
    sem_destroy(&open_gate);
    return status;
}

static tram_future *ask(struct world *world, const char *host, const char *port, const struct addrinfo *hints) {
    tram_future *future;
    assert_int_equal(tram_loop_getaddrinfo(world->loop, host, port, hints, &future), 0);
    return future;
}

static void test_L_35_numbers_resolve_to_themselves(void **state) {
    struct world *world = *state;
    struct addrinfo hints = {.ai_family = AF_INET6, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    char host[] = "::1", port[] = "8080";
    tram_future *future = ask(world, host, port, &hints);
    memset(host, 'x', 3); /* the texts were copied */
    memset(port, 'x', 4);
    assert_false(tram_future_done(future));
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    void *result;
    assert_int_equal(tram_future_result(future, &result), 0);
    const struct addrinfo *address = result;
    assert_int_equal(address->ai_family, AF_INET6);
    assert_int_equal(address->ai_socktype, SOCK_STREAM);
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address->ai_addr;
    assert_int_equal(ntohs(in6->sin6_port), 8080);
    assert_true(IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr));
    tram_future_release(future);
}

/* Larger ones would be others, cut to 16 bits. */
static void test_L_35_a_port_has_16_bits(void **state) {
    struct world *world = *state;
    static const struct {
        const char *port;
        bool known;
    } cases[] = {{"0", true}, {"65535", true}, {"65536", false}, {"65537", false}};
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tram_future *future = ask(world, "127.0.0.1", cases[i].port, &hints);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), cases[i].known ? 0 : TRAM_ERESOLVE);
        tram_future_release(future);
    }
}

static void test_L_35_answers_keep_the_resolvers_order_and_live_with_the_future(void **state) {
    struct world *world = *state;
    tram_future *future = ask(world, "two.test", NULL, NULL);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    void *result;
    assert_int_equal(tram_future_result(future, &result), 0);
    assert_ptr_equal(result, &answer_a);
    assert_ptr_equal(((struct addrinfo *)result)->ai_next, &answer_b);
    assert_int_equal(freed, 0);
    tram_future_release(future);
    assert_int_equal(freed, 1);
}

static void assert_fails(struct world *world, const char *host, int code, const char *detail) {
    tram_future *future = ask(world, host, "1", NULL);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), code);
    const tram_error *error = tram_future_error(future);
    assert_int_equal(error->code, code);
    assert_string_equal(error->operation, "getaddrinfo");
    assert_string_equal(error->detail, detail);
    tram_future_release(future);
}

static void test_X_1_failures_carry_the_resolvers_text(void **state) {
    struct world *world = *state;
    char text[200];
    snprintf(text, sizeof text, "unknown.test: %s", gai_strerror(EAI_NONAME));
    assert_fails(world, "unknown.test", TRAM_ERESOLVE, text);
    assert_fails(world, "system.test", TRAM_ERESOLVE, "system.test: Too many open files");
    snprintf(text, sizeof text, "memory.test: %s", gai_strerror(EAI_MEMORY));
    assert_fails(world, "memory.test", -ENOMEM, text);
}

static void test_L_37_an_empty_answer_is_an_error(void **state) {
    struct world *world = *state;
    assert_fails(world, "empty.test", TRAM_ERESOLVE, "empty.test: the resolver found no address");
}

static void test_L_38_an_interrupted_lookup_is_asked_again(void **state) {
    struct world *world = *state;
    interruptions = 3;
    tram_future *future = ask(world, "interrupted.test", "1", NULL);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    tram_future_release(future);
    assert_int_equal(interruptions, -1);
}

static void test_asking_for_nothing_is_the_resolvers_error(void **state) {
    struct world *world = *state;
    tram_future *future = ask(world, NULL, NULL, NULL);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_ERESOLVE);
    assert_string_equal(tram_future_error(future)->detail, gai_strerror(EAI_NONAME));
    tram_future_release(future);
}

static void test_X_3_a_cancelled_lookup_drops_its_answer(void **state) {
    struct world *world = *state;
    tram_future *future = ask(world, "blocked.test", NULL, NULL);
    sem_wait(&entered);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_int_equal(tram_future_result(future, NULL), TRAM_ECANCELLED);
    tram_future_release(future);
    sem_post(&open_gate);
    tram_future *shutdown;
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 0, &shutdown), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, shutdown), 0);
    tram_future_release(shutdown);
    run_ticks(world, 1);
    assert_int_equal(freed, 1);
}

static int answer_quickly(void *arg, void **ret_result) {
    *ret_result = arg;
    return 0;
}

static int hang(void *arg, void **ret_result) {
    (void)ret_result;
    sem_post(&entered);
    while (sem_wait(arg))
        continue;
    return 0;
}

/* Of a pool of one thread, too. */
static void test_L_35_stuck_jobs_leave_threads_for_lookups(void **state) {
    struct world *world = *state;
    tram_executor *executor;
    tram_future *jobs[3];
    sem_t open;
    sem_init(&open, 0, 0);
    assert_int_equal(tram_executor_new(1, "one", &executor), 0);
    assert_int_equal(tram_loop_set_default_executor(world->loop, executor), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, hang, &open, NULL, &jobs[i]), 0);
    sem_wait(&entered);
    for (int i = 0; i < 10; i++) {
        tram_future *lookup = ask(world, "quick.test", NULL, NULL);
        assert_int_equal(tram_loop_run_until_complete(world->loop, lookup), 0);
        tram_future_release(lookup);
    }
    for (int i = 0; i < 3; i++)
        sem_post(&open);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tram_loop_run_until_complete(world->loop, jobs[i]), 0);
        tram_future_release(jobs[i]);
    }
    world_reopen(world);
    tram_executor_free(executor);
    sem_destroy(&open);
}

static int tell_thread(void *arg, void **ret_result) {
    (void)ret_result;
    *(pthread_t *)arg = pthread_self();
    return 0;
}

/* Whoever makes a pool of one thread has work that must not meet another. */
static void test_L_35_lookups_take_no_thread_of_a_job(void **state) {
    struct world *world = *state;
    tram_executor *executor;
    pthread_t threads[20];
    assert_int_equal(tram_executor_new(1, "one", &executor), 0);
    assert_int_equal(tram_loop_set_default_executor(world->loop, executor), 0);
    for (size_t i = 0; i < 20; i++) {
        tram_future *lookup = ask(world, "quick.test", NULL, NULL), *job;
        assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, tell_thread, &threads[i], NULL, &job), 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, job), 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, lookup), 0);
        tram_future_release(job);
        tram_future_release(lookup);
        assert_true(pthread_equal(threads[i], threads[0]));
    }
    world_reopen(world);
    tram_executor_free(executor);
}

static void test_L_35_stuck_lookups_leave_threads_for_other_jobs(void **state) {
    struct world *world = *state;
    tram_future *lookups[40], *job;
    for (int i = 0; i < 40; i++)
        lookups[i] = ask(world, "blocked.test", NULL, NULL);
    sem_wait(&entered);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, answer_quickly, NULL, NULL, &job), 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, job), 0);
        tram_future_release(job);
    }
    for (int i = 0; i < 40; i++)
        sem_post(&open_gate);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(tram_loop_run_until_complete(world->loop, lookups[i]), 0);
        tram_future_release(lookups[i]);
    }
    assert_int_equal(freed, 40);
}

static void test_L_35_addresses_have_names(void **state) {
    struct world *world = *state;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(8080), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    tram_future *future;
    assert_int_equal(tram_loop_getnameinfo(world->loop, (struct sockaddr *)&address, sizeof address,
                                           NI_NUMERICHOST | NI_NUMERICSERV, &future),
                     0);
    memset(&address, 0, sizeof address);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    void *result;
    assert_int_equal(tram_future_result(future, &result), 0);
    const tram_name_info *info = result;
    assert_string_equal(info->host, "127.0.0.1");
    assert_string_equal(info->service, "8080");
    tram_future_release(future);
}

static void test_getnameinfo_refuses_what_is_no_address(void **state) {
    struct world *world = *state;
    struct sockaddr_storage address = {.ss_family = 0xfff};
    tram_future *future;
    assert_int_equal(tram_loop_getnameinfo(world->loop, NULL, 0, 0, &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_getnameinfo(world->loop, (struct sockaddr *)&address, sizeof address + 1, 0, &future),
                     TRAM_EVALUE);
    assert_int_equal(
        tram_loop_getnameinfo(world->loop, (struct sockaddr *)&address, sizeof address, NI_NUMERICHOST, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_ERESOLVE);
    assert_string_equal(tram_future_error(future)->operation, "getnameinfo");
    assert_string_equal(tram_future_error(future)->detail, gai_strerror(EAI_FAMILY));
    tram_future_release(future);
}

static void test_without_memory_nothing_is_asked(void **state) {
    struct world *world = *state;
    for (size_t allocations = 0;; allocations++) {
        world_reopen(world);
        world->fail_after = allocations;
        tram_future *future;
        int status = tram_loop_getaddrinfo(world->loop, "two.test", "1", NULL, &future);
        world->fail_after = SIZE_MAX;
        if (status) {
            assert_int_equal(status, -ENOMEM);
            continue;
        }
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
        tram_future_release(future);
        return;
    }
}

static void test_L_8_a_closed_loop_resolves_nothing(void **state) {
    struct world *world = *state;
    tram_future *future = ask(world, "blocked.test", NULL, NULL);
    sem_post(&open_gate);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    assert_int_equal(tram_loop_getaddrinfo(world->loop, "two.test", "1", NULL, &future), TRAM_ESTATE);
    struct sockaddr_in address = {.sin_family = AF_INET};
    assert_int_equal(tram_loop_getnameinfo(world->loop, (struct sockaddr *)&address, sizeof address, 0, &future),
                     TRAM_ESTATE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_L_35_numbers_resolve_to_themselves),
        TEST(test_L_35_a_port_has_16_bits),
        TEST(test_L_35_answers_keep_the_resolvers_order_and_live_with_the_future),
        TEST(test_X_1_failures_carry_the_resolvers_text),
        TEST(test_L_37_an_empty_answer_is_an_error),
        TEST(test_L_38_an_interrupted_lookup_is_asked_again),
        TEST(test_asking_for_nothing_is_the_resolvers_error),
        TEST(test_X_3_a_cancelled_lookup_drops_its_answer),
        TEST(test_L_35_stuck_jobs_leave_threads_for_lookups),
        TEST(test_L_35_lookups_take_no_thread_of_a_job),
        TEST(test_L_35_stuck_lookups_leave_threads_for_other_jobs),
        TEST(test_L_35_addresses_have_names),
        TEST(test_getnameinfo_refuses_what_is_no_address),
        TEST(test_without_memory_nothing_is_asked),
        TEST(test_L_8_a_closed_loop_resolves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
