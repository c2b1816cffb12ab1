/*
 * load: the client side of bench/run and bench/counts. It is no part of tram and links nothing of it: sockets
 * and one level-triggered epoll, so that every server is judged by the same stranger.
 *
 * By window (--window-ms): every connection keeps `depth` requests in flight, on its own; with --churn every
 * connection is made, asks once and is closed. What happened between the two ends of the window is printed as
 * one line of JSON, with the CPU time that the server's process had in exactly this window, and with what the
 * kernel says about others on the same CPUs.
 *
 * By count (--rounds): all connections ask, then all answers are read, and so on, a fixed number of times. No
 * clock decides anything, so a server that runs fifty times slower under a tool does the same work.
 *
 * With --tls the same through TLS, by OpenSSL on the sockets; with --churn and --resume all but the first connection
 * resume a session.
 *
 * Every byte that comes back is compared: the bytes of a connection are a piece of one long pattern, at a place
 * that differs from connection to connection and moves on with every byte.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <dirent.h>

#ifdef LOAD_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef struct ssl_st SSL;
#endif

enum {
    PATTERN_PERIOD = 65521, /* prime: no size of message divides it */
    CHUNK = 256 * 1024,     /* most bytes for one send or receive */
    EVENTS = 256,
    SILENCE_MS = 20000, /* a server that says nothing for so long has failed */
    PROCESSES = 2,      /* that a server may have */
    CHURN_SOURCES = 4,  /* source addresses in turn: one has too few ports for a second of short connections */
};

static struct {
    uint16_t port;
    unsigned connections;
    size_t size;
    unsigned depth;
    bool churn;
    bool tls;
    bool resume; /* a session of an earlier connection */
    uint64_t warmup_ms;
    uint64_t window_ms;
    uint64_t rounds;
    int pids[PROCESSES]; /* of the server; 0: no more */
    int cpus[2];         /* of the server and of this program; -1: not told */
} plan = {.connections = 50, .size = 64, .depth = 1, .warmup_ms = 200, .window_ms = 1000, .cpus = {-1, -1}};

static char pattern[PATTERN_PERIOD + CHUNK];
static char received[CHUNK];

static _Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* ---- Content ---- */

static void make_pattern(void) {
    uint32_t state = 2463534242;
    for (size_t i = 0; i < sizeof(pattern); i++) {
        if (i >= PATTERN_PERIOD) {
            pattern[i] = pattern[i - PATTERN_PERIOD];
            continue;
        }
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        pattern[i] = (char)(state >> 24);
    }
}

static const char *pattern_at(uint64_t offset) {
    return pattern + offset % PATTERN_PERIOD;
}

/* ---- Latencies: 64 steps per doubling, so 1.6% at worst ---- */

enum { STEP_BITS = 6, STEPS = 1 << STEP_BITS };
static uint64_t histogram[64 * STEPS];
static uint64_t histogram_total;

static void histogram_add(uint64_t value) {
    unsigned shift = 0;
    if (value >= STEPS) {
        shift = 63 - STEP_BITS - (unsigned)__builtin_clzll(value) + 1;
    }
    histogram[shift * STEPS + (value >> shift)]++;
    histogram_total++;
}

static double histogram_us(double share) {
    uint64_t wanted = (uint64_t)((double)histogram_total * share);
    uint64_t seen = 0;
    for (size_t i = 0; i < sizeof(histogram) / sizeof(histogram[0]); i++) {
        seen += histogram[i];
        if (seen > wanted) {
            return (double)((uint64_t)(i % STEPS) << (i / STEPS)) / 1000;
        }
    }
    return 0;
}

/* ---- What the kernel says about us, the server and others ---- */

struct account {
    uint64_t at_ns;
    uint64_t requests;
    uint64_t server_ns; /* CPU time, of all threads */
    uint64_t load_ns;
    uint64_t server_waited_ns; /* runnable, but another had the CPU */
    uint64_t load_waited_ns;
    uint64_t busy_ms[2]; /* CPU time of everybody on the two CPUs; sampled by the kernel's tick */
    uint64_t steal_ms[2];
    uint64_t ksoftirqd_ns[2]; /* CPU time of the kernel's thread there that does what interrupts leave for later */
};

static int ksoftirqd[2]; /* of the two CPUs; 0: not to be seen */

static uint64_t clock_of(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time) < 0) {
        fail("the server has ended");
    }
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Second number of /proc/PID/task/TID/schedstat, summed. Where there is no such file: 0. */
static uint64_t waited_ns(int pid) {
    char path[300];
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL) {
        return 0;
    }
    uint64_t sum = 0;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", pid, task->d_name);
        FILE *file = task->d_name[0] == '.' ? NULL : fopen(path, "re");
        uint64_t waited;
        if (file != NULL && fscanf(file, "%*u %" SCNu64, &waited) == 1) {
            sum += waited;
        }
        if (file != NULL) {
            fclose(file);
        }
    }
    closedir(tasks);
    return sum;
}

static void read_cpus(struct account *account) {
    FILE *file = fopen("/proc/stat", "re");
    if (file == NULL) {
        return;
    }
    uint64_t tick_ms = 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
    char line[512];
    while (fgets(line, sizeof(line), file) != NULL) {
        int cpu;
        uint64_t user, nice, system, irq, softirq, steal;
        if (sscanf(line, "cpu%d %" SCNu64 " %" SCNu64 " %" SCNu64 " %*u %*u %" SCNu64 " %" SCNu64 " %" SCNu64, &cpu,
                   &user, &nice, &system, &irq, &softirq, &steal) != 7) {
            continue;
        }
        for (int i = 0; i < 2; i++) {
            if (plan.cpus[i] == cpu) {
                account->busy_ms[i] = (user + nice + system + irq + softirq) * tick_ms;
                account->steal_ms[i] = steal * tick_ms;
            }
        }
    }
    fclose(file);
}

/* First number of /proc/PID/schedstat; 0 where there is no such file. */
static uint64_t ran_ns(int pid) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
    FILE *file = fopen(path, "re");
    uint64_t ran = 0;
    if (file != NULL && fscanf(file, "%" SCNu64, &ran) != 1) {
        ran = 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return ran;
}

/* The process of this name, or 0. */
static int pid_of(const char *name) {
    DIR *processes = opendir("/proc");
    int found = 0;
    for (struct dirent *entry; processes != NULL && found == 0 && (entry = readdir(processes)) != NULL;) {
        char path[300];
        char comm[32] = "";
        snprintf(path, sizeof(path), "/proc/%.20s/comm", entry->d_name);
        FILE *file = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' ? fopen(path, "re") : NULL;
        if (file != NULL && fscanf(file, "%31s", comm) == 1 && strcmp(comm, name) == 0) {
            found = atoi(entry->d_name);
        }
        if (file != NULL) {
            fclose(file);
        }
    }
    if (processes != NULL) {
        closedir(processes);
    }
    return found;
}

/*
 * Short connections make work that the kernel does later and in a thread of its own: it frees what was closed. That
 * keeps the server waiting, and is no stranger's doing.
 */
static void find_ksoftirqd(void) {
    for (int i = 0; i < 2; i++) {
        char name[32];
        snprintf(name, sizeof(name), "ksoftirqd/%d", plan.cpus[i]);
        ksoftirqd[i] = plan.cpus[i] < 0 ? 0 : pid_of(name);
    }
}

static struct account take_account(uint64_t requests) {
    struct account account = {.requests = requests};
    read_cpus(&account);
    for (int i = 0; i < 2; i++) {
        account.ksoftirqd_ns[i] = ksoftirqd[i] > 0 ? ran_ns(ksoftirqd[i]) : 0;
    }
    account.load_waited_ns = waited_ns(getpid());
    for (int i = 0; i < PROCESSES && plan.pids[i] > 0; i++) {
        clockid_t clock;
        account.server_waited_ns += waited_ns(plan.pids[i]);
        if (clock_getcpuclockid(plan.pids[i], &clock) != 0) {
            fail("the server has ended");
        }
        account.server_ns += clock_of(clock);
    }
    account.load_ns = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    account.at_ns = now_ns();
    return account;
}

static void print_accounts(const struct account *begin, const struct account *end) {
    uint64_t requests = end->requests - begin->requests;
    uint64_t window_ns = end->at_ns - begin->at_ns;
    printf("{\"requests\": %" PRIu64 ", \"window_ns\": %" PRIu64 ", \"p50_us\": %.1f, \"p99_us\": %.1f"
           ", \"server_ns\": %" PRIu64 ", \"load_ns\": %" PRIu64 ", \"server_waited_ns\": %" PRIu64
           ", \"load_waited_ns\": %" PRIu64 ", \"busy_ms\": [%" PRIu64 ", %" PRIu64 "], \"steal_ms\": [%" PRIu64
           ", %" PRIu64 "], \"ksoftirqd_ns\": [%" PRIu64 ", %" PRIu64 "]}\n",
           requests, window_ns, histogram_us(0.5), histogram_us(0.99), end->server_ns - begin->server_ns,
           end->load_ns - begin->load_ns, end->server_waited_ns - begin->server_waited_ns,
           end->load_waited_ns - begin->load_waited_ns, end->busy_ms[0] - begin->busy_ms[0],
           end->busy_ms[1] - begin->busy_ms[1], end->steal_ms[0] - begin->steal_ms[0],
           end->steal_ms[1] - begin->steal_ms[1], end->ksoftirqd_ns[0] - begin->ksoftirqd_ns[0],
           end->ksoftirqd_ns[1] - begin->ksoftirqd_ns[1]);
}

/* ---- Connections ---- */

struct connection {
    int fd;
    SSL *ssl;           /* with --tls */
    uint32_t events;    /* what epoll watches for */
    uint64_t place;     /* where in the pattern its bytes begin */
    uint64_t asked;     /* bytes that are to be sent, */
    uint64_t sent;      /* were sent, */
    uint64_t returned;  /* and came back */
    uint64_t *asked_at; /* when each of the last `depth` requests was made */
};

static struct connection *connections;
static int epoll;
static uint64_t requests_done;
static uint64_t connections_made;

/* ---- TLS: as send and recv, on a socket that has an SSL ---- */

#ifdef LOAD_TLS
static SSL_CTX *context;
static SSL_SESSION *session; /* the newest that a server gave */

static int keep_session(SSL *ssl, SSL_SESSION *given) {
    (void)ssl;
    SSL_SESSION_free(session);
    session = given;
    return 1;
}

static void prepare_tls(void) {
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL) {
        fail("SSL_CTX_new");
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_session);
}

static void begin_tls(struct connection *connection) {
    connection->ssl = SSL_new(context);
    if (connection->ssl == NULL || !SSL_set_fd(connection->ssl, connection->fd) ||
        (plan.resume && session != NULL && !SSL_set_session(connection->ssl, session))) {
        fail("SSL_new");
    }
    SSL_set_connect_state(connection->ssl);
}

/* The socket blocks still. */
static void shake_hands(struct connection *connection) {
    if (SSL_do_handshake(connection->ssl) != 1) {
        fail("handshake: %s", ERR_reason_error_string(ERR_peek_error()));
    }
}

/* A negative result as of send(2), or 0 at the end of the stream. */
static ssize_t failed(struct connection *connection, int result) {
    int error = SSL_get_error(connection->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    if (error == SSL_ERROR_ZERO_RETURN) {
        return 0;
    }
    if (error == SSL_ERROR_SSL) {
        fail("TLS: %s", ERR_reason_error_string(ERR_peek_error()));
    }
    return errno != 0 ? -1 : 0;
}

static ssize_t transmit(struct connection *connection, const void *bytes, size_t size) {
    size_t sent;
    if (connection->ssl == NULL) {
        return send(connection->fd, bytes, size, MSG_NOSIGNAL);
    }
    int result = SSL_write_ex(connection->ssl, bytes, size, &sent);
    return result > 0 ? (ssize_t)sent : failed(connection, result);
}

static ssize_t receive(struct connection *connection, void *memory, size_t size) {
    size_t came;
    if (connection->ssl == NULL) {
        return recv(connection->fd, memory, size, 0);
    }
    int result = SSL_read_ex(connection->ssl, memory, size, &came);
    return result > 0 ? (ssize_t)came : failed(connection, result);
}

/* Its handshake waits for the server, and cannot go on by writing. */
static bool must_read(const struct connection *connection) {
    return connection->ssl != NULL && SSL_want_read(connection->ssl);
}

static void close_connection(struct connection *connection) {
    if (connection->ssl != NULL) {
        SSL_shutdown(connection->ssl);
        SSL_free(connection->ssl);
        connection->ssl = NULL;
    }
    close(connection->fd);
}
#else
static void prepare_tls(void) {
    fail("--tls: libssl-dev was not installed when this was built");
}

static void begin_tls(struct connection *connection) {
    (void)connection;
}

static void shake_hands(struct connection *connection) {
    (void)connection;
}

static ssize_t transmit(struct connection *connection, const void *bytes, size_t size) {
    return send(connection->fd, bytes, size, MSG_NOSIGNAL);
}

static ssize_t receive(struct connection *connection, void *memory, size_t size) {
    return recv(connection->fd, memory, size, 0);
}

static bool must_read(const struct connection *connection) {
    (void)connection;
    return false;
}

static void close_connection(struct connection *connection) {
    close(connection->fd);
}
#endif

static int open_socket(int flags) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0) {
        fail("socket: %s", strerror(errno));
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (plan.churn) {
        struct sockaddr_in source = {.sin_family = AF_INET};
        source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)(connections_made % CHURN_SOURCES));
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
        if (bind(fd, (struct sockaddr *)&source, sizeof(source)) < 0) {
            fail("bind: %s", strerror(errno));
        }
    }
    connections_made++;
    return fd;
}

/* True: connected; false: will be. */
static bool connect_socket(int fd) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(plan.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
        return true;
    }
    if (errno != EINPROGRESS) {
        fail("connect: %s", strerror(errno));
    }
    return false;
}

static void begin_content(struct connection *connection) {
    connection->place = connections_made * 7919 % PATTERN_PERIOD;
    connection->asked = connection->sent = connection->returned = 0;
}

static void watch(struct connection *connection, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    connection->events = events;
    if (epoll_ctl(epoll, operation, connection->fd, &event) < 0) {
        fail("epoll_ctl: %s", strerror(errno));
    }
}

/* Sends what was asked for, as far as the kernel takes it. */
static void send_some(struct connection *connection) {
    while (connection->sent < connection->asked) {
        uint64_t left = connection->asked - connection->sent;
        ssize_t count =
            transmit(connection, pattern_at(connection->place + connection->sent), left < CHUNK ? left : CHUNK);
        if (count <= 0) {
            if (count < 0 && errno == EAGAIN) {
                return;
            }
            fail("send: %s", count == 0 ? "the server closed" : strerror(errno));
        }
        connection->sent += (uint64_t)count;
    }
}

/* Compares what has come; returns how many bytes, 0 if nothing is there. */
static size_t receive_some(struct connection *connection, size_t most) {
    ssize_t count = receive(connection, received, most);
    if (count <= 0) {
        if (count < 0 && errno == EAGAIN) {
            return 0;
        }
        fail("recv: %s", count == 0 ? "the server closed" : strerror(errno));
    }
    if (connection->returned + (uint64_t)count > connection->sent) {
        fail("more bytes came back than were sent");
    }
    if (memcmp(received, pattern_at(connection->place + connection->returned), (size_t)count) != 0) {
        fail("wrong bytes came back");
    }
    connection->returned += (uint64_t)count;
    return (size_t)count;
}

/* ---- By window ---- */

static uint32_t wanted(const struct connection *connection) {
    return connection->sent < connection->asked && !must_read(connection) ? EPOLLIN | EPOLLOUT : EPOLLIN;
}

static void ask(struct connection *connection, uint64_t count, uint64_t now) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number = connection->asked / plan.size;
        connection->asked_at[number % plan.depth] = now;
        connection->asked += plan.size;
    }
    send_some(connection);
    uint32_t events = wanted(connection);
    if (events != connection->events) {
        watch(connection, EPOLL_CTL_MOD, events);
    }
}

/* Counts the requests that the last bytes completed. */
static uint64_t account_answers(struct connection *connection, uint64_t returned_before, uint64_t now, bool measuring) {
    uint64_t first = returned_before / plan.size;
    uint64_t last = connection->returned / plan.size;
    for (uint64_t number = first; measuring && number < last; number++) {
        histogram_add(now - connection->asked_at[number % plan.depth]);
    }
    requests_done += last - first;
    return last - first;
}

static void connect_again(struct connection *connection) {
    connection->fd = open_socket(SOCK_NONBLOCK);
    begin_content(connection);
    connection->asked_at[0] = now_ns();
    connection->asked = plan.size;
    bool connected = connect_socket(connection->fd);
    if (plan.tls) {
        begin_tls(connection);
    }
    if (connected) {
        send_some(connection);
    }
    watch(connection, EPOLL_CTL_ADD, wanted(connection));
}

static void handle_churn(struct connection *connection, uint32_t events, bool measuring) {
    if (connection->sent < connection->asked && (plan.tls || (events & EPOLLOUT))) {
        send_some(connection);
        if (wanted(connection) != connection->events) {
            watch(connection, EPOLL_CTL_MOD, wanted(connection));
        }
        if (connection->sent < connection->asked) {
            return;
        }
    }
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        uint64_t before = connection->returned;
        receive_some(connection, sizeof(received));
        if (account_answers(connection, before, now_ns(), measuring) > 0) {
            close_connection(connection);
            connect_again(connection);
        }
    }
}

static void handle(struct connection *connection, uint32_t events, bool measuring) {
    uint64_t answers = 0;
    uint64_t now = 0;
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        uint64_t before = connection->returned;
        receive_some(connection, sizeof(received));
        now = now_ns();
        answers = account_answers(connection, before, now, measuring);
    }
    if (answers > 0 || (events & EPOLLOUT)) {
        ask(connection, answers, now);
    }
}

static void start_connections(void) {
    for (unsigned i = 0; i < plan.connections; i++) {
        struct connection *connection = &connections[i];
        if (plan.churn) {
            connect_again(connection);
            continue;
        }
        connection->fd = open_socket(0);
        connect_socket(connection->fd);
        begin_content(connection);
        if (plan.tls) {
            begin_tls(connection);
            shake_hands(connection);
        }
        fcntl(connection->fd, F_SETFL, O_NONBLOCK);
        watch(connection, EPOLL_CTL_ADD, EPOLLIN);
    }
    for (unsigned i = 0; !plan.churn && i < plan.connections; i++) {
        ask(&connections[i], plan.depth, now_ns());
    }
}

static void run_window(void) {
    struct epoll_event events[EVENTS];
    struct account begin = {0};
    bool measuring = false;
    find_ksoftirqd();
    start_connections();
    uint64_t turn_ns = now_ns() + plan.warmup_ms * 1000000;
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, SILENCE_MS);
        if (count < 0 && errno != EINTR) {
            fail("epoll_wait: %s", strerror(errno));
        }
        if (count == 0) {
            fail("the server has not answered for %d ms", SILENCE_MS);
        }
        for (int i = 0; i < count; i++) {
            (plan.churn ? handle_churn : handle)(events[i].data.ptr, events[i].events, measuring);
        }
        if (now_ns() < turn_ns) {
            continue;
        }
        struct account account = take_account(requests_done);
        if (measuring) {
            print_accounts(&begin, &account);
            return;
        }
        begin = account;
        measuring = true;
        turn_ns = begin.at_ns + plan.window_ms * 1000000;
    }
}

/* ---- By count ---- */

static void receive_all(struct connection *connection) {
    while (connection->returned < connection->asked) {
        uint64_t left = connection->asked - connection->returned;
        if (receive_some(connection, left < CHUNK ? left : CHUNK) == 0) {
            fail("the server has not answered for %d ms", SILENCE_MS);
        }
    }
}

static void for_each(void (*action)(struct connection *connection)) {
    for (unsigned i = 0; i < plan.connections; i++) {
        action(&connections[i]);
    }
}

static void connect_one(struct connection *connection) {
    struct timeval patience = {.tv_sec = 3 * SILENCE_MS / 1000};
    connection->fd = open_socket(0);
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    connect_socket(connection->fd);
    begin_content(connection);
    if (plan.tls) {
        begin_tls(connection);
        shake_hands(connection);
    }
}

static void ask_one(struct connection *connection) {
    connection->asked += plan.size * plan.depth;
    send_some(connection);
}

/*
 * One connection, asked once, comes first in every run and stays open: what a server sets up at its first
 * connection is in all runs alike, and so is its end.
 */
static void run_rounds(void) {
    bool churn = plan.churn;
    struct connection first = {0};
    connect_one(&first);
    ask_one(&first);
    receive_all(&first);
    if (!churn) {
        for_each(connect_one);
    }
    for (uint64_t round = 0; round < plan.rounds; round++) {
        if (churn) {
            for_each(connect_one);
        }
        for_each(ask_one);
        for_each(receive_all);
        if (churn) {
            for_each(close_connection);
        }
    }
    /* The server answers this one after it has seen the last of the others. */
    ask_one(&first);
    receive_all(&first);
    printf("{\"requests\": %" PRIu64 "}\n", plan.rounds * plan.connections * plan.depth);
}

/* ---- What it is told ---- */

static void usage(FILE *out) {
    fputs("usage: load --port P [--connections C] [--size BYTES] [--depth D] [--churn] [--tls [--resume]]\n"
          "            [--warmup-ms N] [--window-ms N] [--pid SERVER] [--cpus SERVER,OWN] | --rounds N\n",
          out);
}

static uint64_t number(const char *name, const char *text, uint64_t least, uint64_t most) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < least || value > most) {
        fail("%s: not a number from %" PRIu64 " to %" PRIu64 ": %s", name, least, most, text);
    }
    return value;
}

static void read_arguments(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--help") == 0) {
            usage(stdout);
            exit(0);
        }
        if (strcmp(name, "--churn") == 0) {
            plan.churn = true;
            continue;
        }
        if (strcmp(name, "--tls") == 0 || strcmp(name, "--resume") == 0) {
            plan.tls = true;
            plan.resume |= name[2] == 'r';
            continue;
        }
        const char *value = argv[++i];
        if (value == NULL) {
            usage(stderr);
            exit(2);
        }
        if (strcmp(name, "--port") == 0) {
            plan.port = (uint16_t)number(name, value, 1, 65535);
        } else if (strcmp(name, "--connections") == 0) {
            plan.connections = (unsigned)number(name, value, 1, 1000000);
        } else if (strcmp(name, "--size") == 0) {
            plan.size = number(name, value, 1, 1 << 30);
        } else if (strcmp(name, "--depth") == 0) {
            plan.depth = (unsigned)number(name, value, 1, 100000);
        } else if (strcmp(name, "--warmup-ms") == 0) {
            plan.warmup_ms = number(name, value, 0, 1000000);
        } else if (strcmp(name, "--window-ms") == 0) {
            plan.window_ms = number(name, value, 1, 1000000);
        } else if (strcmp(name, "--rounds") == 0) {
            plan.rounds = number(name, value, 1, 1000000000);
        } else if (strcmp(name, "--pid") == 0) {
            plan.pids[plan.pids[0] > 0] = (int)number(name, value, 1, INT32_MAX);
        } else if (strcmp(name, "--cpus") != 0 || sscanf(value, "%d,%d", &plan.cpus[0], &plan.cpus[1]) != 2) {
            usage(stderr);
            exit(2);
        }
    }
    if (plan.port == 0 || (plan.churn && plan.depth != 1)) {
        usage(stderr);
        exit(2);
    }
}

int main(int argc, char **argv) {
    read_arguments(argc, argv);
    make_pattern();
    if (plan.tls) {
        prepare_tls();
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    epoll = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc(plan.connections, sizeof(*connections));
    uint64_t *times = calloc((size_t)plan.connections * plan.depth, sizeof(*times));
    if (epoll < 0 || connections == NULL || times == NULL) {
        fail("%s", strerror(errno));
    }
    for (unsigned i = 0; i < plan.connections; i++) {
        connections[i].asked_at = times + (size_t)i * plan.depth;
    }
    if (plan.rounds > 0) {
        run_rounds();
    } else {
        run_window();
    }
    return 0;
}
