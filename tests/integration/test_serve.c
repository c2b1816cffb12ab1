/* tram_serve() and tram_serve_main(), as programs of their own: what they say, and how they end. */
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/memory.h"
#include "support/support.h"

static int echo(tram_protocol *self, const void *data, size_t size) {
    if (*(const char *)data == 'h') {
        puts("hangs");
        fflush(stdout);
        for (;;)
            pause();
    }
    return tram_transport_write(self->transport, data, size);
}

static void echo_released(tram_protocol *self) {
    free(self);
}

static const tram_protocol_ops echo_ops = {.data_received = echo, .released = echo_released};

static int make_echo(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    *ret_protocol = calloc(1, sizeof **ret_protocol);
    if (!*ret_protocol)
        return -ENOMEM;
    (*ret_protocol)->ops = &echo_ops;
    return 0;
}

static const char *root, *prepared;
static tram_runtime_options runtime_options;

/* What the command line says is known here. */
static int prepare(void *arg) {
    (void)arg;
    if (root && strcmp(root, "nowhere") == 0) {
        fprintf(stderr, "no such root\n");
        return -ENOENT;
    }
    prepared = root;
    return 0;
}

/* A program whose main function is tram_serve_main(), with these arguments. */
struct program {
    pid_t pid;
    FILE *output; /* both of standard output and standard error */
    char line[512];
};

static uintptr_t reserved_word;
static uint64_t without_memory; /* the number of the allocation that fails; 0: none */

static bool without_options, bad_server_options;

static struct program start(char **argv) {
    int pipes[2], argc = 0;
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    while (argv[argc])
        argc++;
    struct program program = {.pid = fork()};
    assert_true(program.pid >= 0);
    if (!program.pid) {
        static const tram_server_options steered = {.backlog = -1};
        static const tram_serve_argument arguments[] = {{"--root", "DIR", "what is served", &root}, {0}};
        dup2(pipes[1], 1);
        dup2(pipes[1], 2);
        char own_pid[20];
        snprintf(own_pid, sizeof own_pid, "%d", (int)getpid());
        if (getenv("LISTEN_FDS"))
            setenv("LISTEN_PID", own_pid, 1);
        tram_serve_options options = {.name = "serve-test",
                                      .summary = "sends back",
                                      .workers = 2,
                                      .arguments = arguments,
                                      .prepare = prepare,
                                      .runtime = &runtime_options,
                                      .server = bad_server_options ? &steered : NULL,
                                      .reserved = {reserved_word}};
        memory_fail(without_memory, without_memory ? 1 : 0);
        int before = open_descriptors() - (getenv("LISTEN_FDS") ? 1 : 0);
        int status = without_options ? tram_serve(make_echo, NULL, NULL)
                                     : tram_serve_main(argc, argv, make_echo, NULL, &options);
        if (open_descriptors() != before)
            printf("%d descriptors instead of %d\n", open_descriptors(), before);
        if (prepared)
            printf("root %s\n", prepared);
        fflush(stdout);
        _exit(status == 0 ? 0 : status == TRAM_EVALUE ? 2 : 1);
    }
    close(pipes[1]);
    program.output = fdopen(pipes[0], "r");
    return program;
}

static const char *next_line(struct program *program) {
    return fgets(program->line, sizeof program->line, program->output) ? program->line : "(end)";
}

static int finish(struct program *program, int signal) {
    int status;
    if (signal)
        kill(program->pid, signal);
    assert_int_equal(waitpid(program->pid, &status, 0), program->pid);
    fclose(program->output);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static uint16_t port_of(const char *line) {
    unsigned port;
    assert_int_equal(sscanf(line, "listening on 127.0.0.1:%u\n", &port), 1);
    return (uint16_t)port;
}

/* What a program that serves has opened by itself, whatever for, no child of its own will have. */
static void assert_closed_on_exec(const struct program *program) {
    for (int fd = 3; fd < 100; fd++) {
        char path[64], text[200] = "";
        unsigned flags = 0;
        snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)program->pid, fd);
        int file = fcntl(fd, F_GETFD) < 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1; /* else it is inherited */
        if (file < 0)
            continue;
        (void)!read(file, text, sizeof text - 1);
        close(file);
        assert_int_equal(sscanf(text, "pos: %*d flags: %o", &flags), 1);
        if (!(flags & O_CLOEXEC))
            fail_msg("descriptor %d is not closed on exec: %s", fd, text);
    }
}

static void test_it_says_where_it_listens_serves_and_ends_by_a_signal(void **state) {
    (void)state;
    struct program program = start((char *[]){"x", "--port=0", "--workers", "1", "--root", "here", NULL});
    int fd = tcp_connect(port_of(next_line(&program)));
    assert_true(fd >= 0);
    char byte = 'a';
    assert_int_equal(write(fd, &byte, 1), 1);
    byte = 0;
    assert_int_equal(read(fd, &byte, 1), 1);
    assert_int_equal(byte, 'a');
    close(fd);
    kill(program.pid, SIGTERM);
    assert_string_equal(next_line(&program), "root here\n");
    assert_int_equal(finish(&program, 0), 0);
}

static bool answers(int fd) {
    char byte = 'a';
    return write(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 1 && byte == 'a';
}

/* rules: G-6 */
static void test_the_next_one_takes_the_listeners_over(void **state) {
    (void)state;
    char path[40];
    snprintf(path, sizeof path, "@tram-serve-%d", (int)getpid());
    struct program first = start((char *[]){"x", "--inherit", path, NULL});
    uint16_t port = port_of(next_line(&first));
    int fd = tcp_connect(port);
    assert_true(answers(fd));
    for (int i = 0; i < 2; i++) {
        struct program next = start((char *[]){"x", "--inherit", path, NULL});
        assert_int_equal(port_of(next_line(&next)), port);
        assert_int_equal(finish(&first, 0), 0);
        char byte;
        assert_int_equal(read(fd, &byte, 1), 0); /* in good order */
        close(fd);
        fd = tcp_connect(port);
        assert_true(answers(fd));
        first = next;
    }
    close(fd);
    assert_int_equal(finish(&first, SIGTERM), 0);
    /* Who cannot offer them does not serve. */
    struct program wrong = start((char *[]){"x", "--inherit", "/nowhere/at/all", NULL});
    assert_non_null(strstr(next_line(&wrong), "cannot offer the listeners"));
    assert_int_equal(finish(&wrong, 0), 1);
}

/* rules: G-6 */
static void test_without_memory_for_what_is_taken_over_it_says_so(void **state) {
    (void)state;
    bool told = false;
    for (without_memory = 1; !told; without_memory++) {
        struct program program = start((char *[]){"x", "--port=0", NULL});
        const char *line = next_line(&program);
        bool serves = strncmp(line, "listening", 9) == 0;
        assert_false(serves);
        told = strstr(line, "cannot take the listeners over") != NULL;
        if (told)
            assert_non_null(strstr(line, tram_error_text(-ENOMEM)));
        assert_int_equal(finish(&program, 0), 1);
    }
    without_memory = 0;
}

/* As systemd does it, with a listener of its own. */
static struct program start_with_listener(char **argv, uint16_t *ret_port) {
    int listener = tcp_listener(5, ret_port), passed = 3; /* where systemd puts it */
    int saved = fcntl(passed, F_DUPFD_CLOEXEC, 10);
    assert_int_equal(listener == passed ? passed : dup2(listener, passed), passed);
    setenv("LISTEN_FDS", "1", 1);
    struct program program = start(argv);
    unsetenv("LISTEN_FDS");
    close(listener);
    if (listener != passed)
        close(passed);
    if (saved >= 0) {
        assert_int_equal(dup2(saved, passed), passed);
        close(saved);
    }
    return program;
}

static void test_sockets_that_were_passed_are_served(void **state) {
    (void)state;
    uint16_t port;
    struct program program = start_with_listener((char *[]){"x", "--port", "1", NULL}, &port);
    assert_int_equal(port_of(next_line(&program)), port);
    int fd = tcp_connect(port);
    assert_true(answers(fd));
    close(fd);
    assert_int_equal(finish(&program, SIGTERM), 0);
}

/* ---- What systemd is told ---- */

/* The next datagram, and what it should be, for the message. */
static const char *next_told(int fd, const char *awaited) {
    static char text[200];
    ssize_t size = recv(fd, text, sizeof text - 1, 0);
    if (size < 0)
        fail_msg("not told in time: %s", awaited);
    text[size] = '\0';
    return text;
}

static void assert_told(int fd, const char *expected) {
    assert_string_equal(next_told(fd, expected), expected);
}

static int notify_socket(void) {
    char name[40];
    tram_socket_address address;
    const struct timeval patience = {.tv_sec = 20};
    snprintf(name, sizeof name, "@tram-notify-%d", (int)getpid());
    setenv("NOTIFY_SOCKET", name, 1);
    size_t size = strlen(name);
    name[0] = '\0';
    assert_int_equal(tram_socket_address_unix(name, size, &address), 0);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address.address, address.size), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    return fd;
}

static void test_systemd_is_told_of_a_service_and_its_next_process(void **state) {
    (void)state;
    int fd = notify_socket();
    char path[40], expected[60];
    snprintf(path, sizeof path, "@tram-serve-%d", (int)getpid());
    struct program first = start((char *[]){"x", "--inherit", path, NULL});
    assert_told(fd, "READY=1");
    (void)port_of(next_line(&first));
    assert_closed_on_exec(&first);
    struct program next = start((char *[]){"x", "--inherit", path, NULL});
    unsigned long long microseconds;
    assert_int_equal(sscanf(next_told(fd, "RELOADING"), "RELOADING=1\nMONOTONIC_USEC=%llu", &microseconds), 1);
    snprintf(expected, sizeof expected, "READY=1\nMAINPID=%d", (int)next.pid);
    assert_told(fd, expected); /* and no word of the one that ends */
    assert_int_equal(finish(&first, 0), 0);
    (void)port_of(next_line(&next));
    kill(next.pid, SIGTERM);
    assert_told(fd, "STOPPING=1");
    assert_int_equal(finish(&next, 0), 0);
    unsetenv("NOTIFY_SOCKET");
    close(fd);
}

static void test_systemd_is_told_that_all_workers_are_alive(void **state) {
    (void)state;
    int fd = notify_socket(), told = 0, status;
    setenv("WATCHDOG_USEC", "8000", 1);
    struct program program = start((char *[]){"x", NULL});
    assert_told(fd, "READY=1");
    for (int i = 0; i < 3; i++)
        assert_told(fd, "WATCHDOG=1");
    int client = tcp_connect(port_of(next_line(&program)));
    assert_int_equal(write(client, "h", 1), 1); /* a worker hangs */
    assert_string_equal(next_line(&program), "hangs\n");
    const struct timeval soon = {.tv_usec = 100000};
    while (recv(fd, (char[20]){0}, 20, MSG_DONTWAIT) > 0)
        continue; /* of before */
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon), 0);
    while (told < 20 && recv(fd, (char[20]){0}, 20, 0) > 0)
        told++;
    assert_true(told <= 2); /* one that was on its way */
    kill(program.pid, SIGKILL);
    assert_int_equal(waitpid(program.pid, &status, 0), program.pid);
    fclose(program.output);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    close(client);
    close(fd);
}

static void test_a_port_that_is_taken_is_told_with_a_hint(void **state) {
    (void)state;
    uint16_t port;
    int fd = tcp_listener(1, &port);
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    struct program program = start((char *[]){"x", "--port", text, NULL});
    const char *line = next_line(&program);
    assert_non_null(strstr(line, "serve-test: cannot listen on 127.0.0.1 port "));
    assert_non_null(strstr(line, text));
    assert_non_null(strstr(next_line(&program), "hint: another program listens there"));
    assert_int_equal(finish(&program, 0), 1);
    close(fd);
}

static void test_help_lists_the_options_and_ends_well(void **state) {
    (void)state;
    struct program program = start((char *[]){"x", "--help", NULL});
    assert_string_equal(next_line(&program), "usage: serve-test [options]\n");
    assert_string_equal(next_line(&program), "serve-test: sends back\n");
    bool root_told = false, workers_told = false;
    while (strcmp(next_line(&program), "(end)")) {
        root_told |= strstr(program.line, "--root DIR  what is served") != NULL;
        workers_told |= strstr(program.line, "--workers N  threads (2)") != NULL;
    }
    assert_true(root_told && workers_told);
    assert_int_equal(finish(&program, 0), 0);
}

static void test_what_is_no_option_is_told(void **state) {
    (void)state;
    static char *const wrong[][3] = {
        {"--prot", "1", "no such option or value: --prot 1"},
        {"--workers", "x", "no such option or value: --workers x"},
        {"--workers", "1025", "no such option or value: --workers 1025"},
        {"--prot=1", NULL, "no such option or value: --prot 1"},
        {"--port", NULL, "no such option, or it needs a value: --port;"},
        {"7000", "x", "no such option or value: 7000 x"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct program program = start((char *[]){"x", wrong[i][0], wrong[i][1], NULL});
        assert_non_null(strstr(next_line(&program), wrong[i][2]));
        assert_string_equal(next_line(&program), "(end)");
        assert_int_equal(finish(&program, 0), 2);
    }
}

static void test_an_option_without_sense_is_named(void **state) {
    (void)state;
    runtime_options.stack_size = 1;
    struct program program = start((char *[]){"x", NULL});
    assert_non_null(strstr(next_line(&program), "cannot make the workers: Invalid value: stack_size"));
    assert_int_equal(finish(&program, 0), 2);
    runtime_options.stack_size = 0;
    reserved_word = 1; /* nothing is begun, not even what the program prepares */
    program = start((char *[]){"x", "--root", "/", NULL});
    assert_string_equal(next_line(&program), "serve-test: cannot serve: Invalid value: reserved\n");
    assert_string_equal(next_line(&program), "(end)");
    assert_int_equal(finish(&program, 0), 2);
    reserved_word = 0;
}

static void test_an_address_of_nobody_is_told(void **state) {
    (void)state;
    struct program program = start((char *[]){"x", "--host", "192.0.2.1", NULL});
    assert_non_null(strstr(next_line(&program), "cannot listen on 192.0.2.1 port 0"));
    assert_non_null(strstr(next_line(&program), "hint: no interface"));
    assert_int_equal(finish(&program, 0), 1);
}

static void test_what_can_be_done_about_it_is_told(void **state) {
    (void)state;
    static const struct {
        tram_fault_kind kind;
        int error;
        const char *hint; /* NULL: none */
    } cases[] = {
        {TRAM_FAULT_BIND, EADDRINUSE, "hint: another program listens there"},
        {TRAM_FAULT_BIND, EACCES, "hint: ports below 1024"},
        {TRAM_FAULT_BIND, EPERM, "hint: ports below 1024"},
        {TRAM_FAULT_BIND, EADDRNOTAVAIL, "hint: no interface"},
        {TRAM_FAULT_SOCKET, EMFILE, "hint: too many files are open"},
        {TRAM_FAULT_SOCKET, ENFILE, "hint: too many files are open"},
        {TRAM_FAULT_SOCKET, ENOBUFS, NULL},
    };
    assert_int_equal(tram_faults_new(NULL, &runtime_options.loop.faults), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tram_faults_reset(runtime_options.loop.faults);
        tram_faults_fail(runtime_options.loop.faults, cases[i].kind, 1, TRAM_FAULT_ALWAYS, cases[i].error);
        struct program program = start((char *[]){"x", "--port", "0", NULL});
        assert_non_null(strstr(next_line(&program), "cannot listen on 127.0.0.1 port 0"));
        const char *line = next_line(&program);
        assert_true(cases[i].hint ? strstr(line, cases[i].hint) != NULL : !strcmp(line, "(end)"));
        assert_int_equal(finish(&program, 0), 1);
    }
    tram_faults_free(runtime_options.loop.faults);
    runtime_options.loop.faults = NULL;
    struct program program = start((char *[]){"x", "--port", "no service", NULL});
    assert_non_null(strstr(next_line(&program), "cannot listen on 127.0.0.1 port no service"));
    assert_non_null(strstr(next_line(&program), "hint: --host is an address or a name"));
    assert_int_equal(finish(&program, 0), 1);
}

/* Nor does a process that gives up serving keep what was passed to it. */
static void test_sockets_that_cannot_be_served_are_closed(void **state) {
    (void)state;
    char path[40];
    uint16_t port;
    snprintf(path, sizeof path, "@tram-serve-%d", (int)getpid());
    bad_server_options = true;
    struct program program = start_with_listener((char *[]){"x", NULL}, &port);
    assert_non_null(strstr(next_line(&program), "cannot serve the sockets that were passed: Invalid value: backlog"));
    assert_string_equal(next_line(&program), "(end)");
    assert_int_equal(finish(&program, 0), 2);
    bad_server_options = false;
    struct program first = start((char *[]){"x", "--inherit", path, NULL});
    port = port_of(next_line(&first));
    bad_server_options = true;
    program = start((char *[]){"x", "--inherit", path, NULL});
    assert_non_null(strstr(next_line(&program), "cannot serve the sockets that were passed: Invalid value: backlog"));
    assert_string_equal(next_line(&program), "(end)");
    assert_int_equal(finish(&program, 0), 2);
    bad_server_options = false;
    int fd = tcp_connect(port); /* who passed them goes on */
    assert_true(answers(fd));
    close(fd);
    assert_int_equal(finish(&first, SIGTERM), 0);
}

static void test_workers_that_cannot_start_are_told(void **state) {
    (void)state;
    runtime_options.stack_size = (size_t)1 << 46;
    struct program program = start((char *[]){"x", NULL});
    assert_non_null(strstr(next_line(&program), "cannot start the workers"));
    assert_string_equal(next_line(&program), "(end)");
    assert_int_equal(finish(&program, 0), 1);
    runtime_options.stack_size = 0;
}

static void test_no_options_are_the_defaults(void **state) {
    (void)state;
    without_options = true;
    struct program program = start((char *[]){"x", NULL});
    without_options = false;
    int fd = tcp_connect(port_of(next_line(&program)));
    assert_true(answers(fd));
    close(fd);
    assert_int_equal(finish(&program, SIGTERM), 0);
}

static void test_what_cannot_be_prepared_is_not_served(void **state) {
    (void)state;
    struct program program = start((char *[]){"x", "--root", "nowhere", NULL});
    assert_string_equal(next_line(&program), "no such root\n");
    assert_string_equal(next_line(&program), "(end)");
    assert_int_equal(finish(&program, 0), 1);
    /* Nor with the most workers that there may be: an option that is understood. */
    program = start((char *[]){"x", "--workers", "1024", "--root", "nowhere", NULL});
    assert_string_equal(next_line(&program), "no such root\n");
    assert_int_equal(finish(&program, 0), 1);
}

/* As if the kernel refused to tell or to change it. */
static int getrlimit_error, setrlimit_error;

int getrlimit(__rlimit_resource_t resource, struct rlimit *ret_limit) {
    if (!getrlimit_error)
        return prlimit(0, resource, NULL, ret_limit);
    errno = getrlimit_error;
    return -1;
}

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit) {
    if (!setrlimit_error)
        return prlimit(0, resource, limit, NULL);
    errno = setrlimit_error;
    return -1;
}

static void test_a_limit_of_files_that_cannot_be_raised(void **state) {
    (void)state;
    getrlimit_error = EPERM;
    setrlimit_error = ENOMEM; /* nobody gets so far */
    assert_int_equal(tram_raise_file_limit(), -EPERM);
    getrlimit_error = 0;
    setrlimit_error = EPERM;
    assert_int_equal(tram_raise_file_limit(), -EPERM);
    /* It is served all the same. */
    struct program program = start((char *[]){"x", NULL});
    setrlimit_error = 0;
    int fd = tcp_connect(port_of(next_line(&program)));
    assert_true(answers(fd));
    close(fd);
    assert_int_equal(finish(&program, SIGTERM), 0);
}

static void test_the_limit_of_files_is_raised_to_what_is_allowed(void **state) {
    (void)state;
    struct rlimit before, after;
    getrlimit(RLIMIT_NOFILE, &before);
    struct rlimit low = {.rlim_cur = 64, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    int limit = tram_raise_file_limit();
    getrlimit(RLIMIT_NOFILE, &after);
    assert_int_equal(after.rlim_cur, before.rlim_max);
    assert_true(limit == (int)after.rlim_cur || limit == INT32_MAX);
    setrlimit(RLIMIT_NOFILE, &before);
}

int main(void) {
    if (is_emulated())
        return skip_program("valgrind cannot extend the stack of a forked child to deliver a signal");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_says_where_it_listens_serves_and_ends_by_a_signal),
        cmocka_unit_test(test_the_next_one_takes_the_listeners_over),
        cmocka_unit_test(test_without_memory_for_what_is_taken_over_it_says_so),
        cmocka_unit_test(test_sockets_that_were_passed_are_served),
        cmocka_unit_test(test_systemd_is_told_of_a_service_and_its_next_process),
        cmocka_unit_test(test_systemd_is_told_that_all_workers_are_alive),
        cmocka_unit_test(test_a_port_that_is_taken_is_told_with_a_hint),
        cmocka_unit_test(test_help_lists_the_options_and_ends_well),
        cmocka_unit_test(test_what_is_no_option_is_told),
        cmocka_unit_test(test_an_option_without_sense_is_named),
        cmocka_unit_test(test_an_address_of_nobody_is_told),
        cmocka_unit_test(test_what_can_be_done_about_it_is_told),
        cmocka_unit_test(test_sockets_that_cannot_be_served_are_closed),
        cmocka_unit_test(test_workers_that_cannot_start_are_told),
        cmocka_unit_test(test_no_options_are_the_defaults),
        cmocka_unit_test(test_what_cannot_be_prepared_is_not_served),
        cmocka_unit_test(test_the_limit_of_files_is_raised_to_what_is_allowed),
        cmocka_unit_test(test_a_limit_of_files_that_cannot_be_raised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
