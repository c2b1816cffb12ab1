/*
 * The stranger that asks the echo servers of bench/udp: SENDERS sockets, each always waiting for one answer. Prints
 * what was answered within the window and the CPU time that the server had in it.
 *
 *     udp_load PORT PID SENDERS SIZE WARMUP_MS WINDOW_MS
 */
#include <sys/epoll.h>

#include "udp_common.h"

enum { EVENTS = 256, SENDERS_MOST = 4096 };

static char request[65536], answer[65536];
static uint32_t numbers[SENDERS_MOST]; /* of the request that each sender waits for: the first bytes of it */
static int sockets[SENDERS_MOST];
static size_t size;

static void ask(unsigned sender) {
    numbers[sender]++;
    memcpy(request, &numbers[sender], sizeof(numbers[sender]));
    if (send(sockets[sender], request, size, 0) != (ssize_t)size)
        fail("send");
}

/* True if it was the answer that the sender waits for. */
static bool read_answer(unsigned sender) {
    ssize_t count = recv(sockets[sender], answer, sizeof(answer), MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == ECONNREFUSED))
        return false;
    memcpy(request, &numbers[sender], sizeof(numbers[sender]));
    if (count != (ssize_t)size || memcmp(request, answer, size) != 0)
        fail("a wrong answer");
    return true;
}

int main(int argc, char **argv) {
    if (argc != 7)
        return 2;
    struct sockaddr_in server = loopback((uint16_t)atoi(argv[1]));
    int pid = atoi(argv[2]), epoll = epoll_create1(0);
    unsigned senders = (unsigned)atoi(argv[3]);
    size = (size_t)atoi(argv[4]);
    uint64_t warmup_ns = strtoull(argv[5], NULL, 10) * 1000000, window_ns = strtoull(argv[6], NULL, 10) * 1000000;
    if (senders > SENDERS_MOST || size < sizeof(numbers[0]) || size > sizeof(request))
        return 2;
    for (unsigned i = 0; i < senders; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        sockets[i] = socket(AF_INET, SOCK_DGRAM, 0);
        if (sockets[i] < 0 || connect(sockets[i], (struct sockaddr *)&server, sizeof(server)) < 0 ||
            epoll_ctl(epoll, EPOLL_CTL_ADD, sockets[i], &event) < 0)
            fail("connecting");
        ask(i);
    }
    uint64_t start = clock_ns(CLOCK_MONOTONIC), begin = 0, server_ns = 0, answers = 0;
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, 5000);
        if (count <= 0)
            fail("the server says nothing");
        for (int i = 0; i < count; i++)
            if (read_answer(events[i].data.u32)) {
                answers++;
                ask(events[i].data.u32);
            }
        uint64_t now = clock_ns(CLOCK_MONOTONIC);
        if (!begin && now - start >= warmup_ns) {
            begin = now;
            server_ns = cpu_ns(pid);
            answers = 0;
        } else if (begin && now - begin >= window_ns) {
            printf("{\"answers\": %llu, \"server_ns\": %llu, \"window_ns\": %llu}\n", (unsigned long long)answers,
                   (unsigned long long)(cpu_ns(pid) - server_ns), (unsigned long long)(now - begin));
            return 0;
        }
    }
}
