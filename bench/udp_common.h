/* What the programs of bench/udp share: none of it is of tram. */
#ifndef BENCH_UDP_COMMON_H
#define BENCH_UDP_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/*
 * The bulk flow: the source sends bursts and keeps at most WINDOW datagrams on their way; the sink answers every ACK
 * datagrams with how many it has had. All of the window fits into the sink's buffer, so nothing is lost.
 */
enum { DATAGRAM = 1200, BURST = 54, ACK = 54, WINDOW = 162, BUFFER = 4 << 20 };

static inline _Noreturn void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static inline struct sockaddr_in loopback(uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
}

static inline void large_buffers(int fd) {
    int size = BUFFER;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

/* A bound blocking socket; says where it listens. */
static inline int open_socket(void) {
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        fail("opening a socket");
    large_buffers(fd);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static inline uint64_t clock_ns(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time) < 0)
        fail("clock_gettime");
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* CPU time of a process, all of its threads. */
static inline uint64_t cpu_ns(int pid) {
    clockid_t clock;
    if (clock_getcpuclockid(pid, &clock) != 0)
        fail("no clock of the other process");
    return clock_ns(clock);
}

/* The source's account: one line of JSON. */
struct account {
    int sink;
    uint64_t sink_ns, source_ns, wall_ns;
};

static inline struct account account_begin(int sink) {
    return (struct account){sink, cpu_ns(sink), clock_ns(CLOCK_PROCESS_CPUTIME_ID), clock_ns(CLOCK_MONOTONIC)};
}

static inline void account_end(const struct account *begin, uint64_t datagrams) {
    struct account end = account_begin(begin->sink);
    printf("{\"bytes\": %llu, \"source_ns\": %llu, \"sink_ns\": %llu, \"wall_ns\": %llu}\n",
           (unsigned long long)datagrams * DATAGRAM, (unsigned long long)(end.source_ns - begin->source_ns),
           (unsigned long long)(end.sink_ns - begin->sink_ns), (unsigned long long)(end.wall_ns - begin->wall_ns));
}

/* The arguments of a source: PORT PID MEBIBYTES. */
struct source_plan {
    uint16_t port;
    int pid;
    uint64_t datagrams;
};

static inline struct source_plan source_plan(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s echo | sink | source PORT PID MEBIBYTES\n", argv[0]);
        exit(2);
    }
    uint64_t bytes = strtoull(argv[4], NULL, 10) << 20;
    return (struct source_plan){(uint16_t)atoi(argv[2]), atoi(argv[3]), bytes / DATAGRAM / BURST * BURST};
}

#endif
