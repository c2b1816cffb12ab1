/*
 * The floor of bench/udp: nothing but system calls. `echo` is epoll, recvmmsg and sendmmsg of 32, as tram's batches
 * are; `sink` and `source` are one recvfrom or sendto per datagram, on blocking sockets.
 */
#include <sys/epoll.h>

#include "udp_common.h"

enum { BATCH = 32, SLOT = 65536 };

static int echo(void) {
    static char bytes[BATCH][SLOT + 256];
    static struct sockaddr_in peers[BATCH];
    static struct iovec pieces[BATCH];
    static struct mmsghdr messages[BATCH];
    int fd = open_socket(), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll");
    for (;;) {
        if (epoll_wait(epoll, &event, 1, -1) < 1)
            continue;
        for (int i = 0; i < BATCH; i++) {
            pieces[i] = (struct iovec){bytes[i], SLOT};
            messages[i].msg_hdr = (struct msghdr){
                .msg_name = &peers[i], .msg_namelen = sizeof(peers[i]), .msg_iov = &pieces[i], .msg_iovlen = 1};
        }
        int count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < count; i++)
            pieces[i].iov_len = messages[i].msg_len;
        if (count > 0 && sendmmsg(fd, messages, (unsigned)count, MSG_DONTWAIT) != count)
            fail("sendmmsg");
    }
}

static int sink(void) {
    static char bytes[SLOT];
    struct sockaddr_in peer;
    uint64_t count = 0;
    int fd = open_socket();
    for (;;) {
        socklen_t size = sizeof(peer);
        if (recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&peer, &size) != DATAGRAM)
            fail("recvfrom");
        if (++count % ACK == 0)
            sendto(fd, &count, sizeof(count), 0, (struct sockaddr *)&peer, size);
    }
}

static int source(const struct source_plan *plan) {
    static char bytes[DATAGRAM];
    struct sockaddr_in sink_address = loopback(plan->port);
    struct timeval patience = {.tv_sec = 5};
    uint64_t sent = 0, acked = 0;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0)
        fail("socket");
    large_buffers(fd);
    struct account account = account_begin(plan->pid);
    while (acked < plan->datagrams) {
        if (sent < plan->datagrams && sent + BURST - acked <= WINDOW) {
            for (int i = 0; i < BURST; i++, sent++)
                if (sendto(fd, bytes, DATAGRAM, 0, (struct sockaddr *)&sink_address, sizeof(sink_address)) != DATAGRAM)
                    fail("sendto");
        } else if (recvfrom(fd, &acked, sizeof(acked), 0, NULL, NULL) != sizeof(acked)) {
            fail("waiting for the sink");
        }
    }
    account_end(&account, sent);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "echo") == 0)
        return echo();
    if (argc == 2 && strcmp(argv[1], "sink") == 0)
        return sink();
    struct source_plan plan = source_plan(argc, argv);
    return source(&plan);
}
