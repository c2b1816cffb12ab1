/* The floor of waking another thread: two threads that write each other's eventfd, with no queue at all. */
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "micro.h"

static int here, there; /* eventfds */
static uint64_t total, slice;
static struct micro_slices slices;

/* As any loop must wait that serves more than one descriptor. */
static void wait_for(int poller, int fd) {
    struct epoll_event event;
    uint64_t value;
    MICRO_CHECK(epoll_wait(poller, &event, 1, -1) == 1);
    MICRO_CHECK(read(fd, &value, sizeof value) == sizeof value);
}

static int poller_of(int fd) {
    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    MICRO_CHECK(poller >= 0 && epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0);
    return poller;
}

static void wake(int fd) {
    uint64_t one = 1;
    MICRO_CHECK(write(fd, &one, sizeof one) == sizeof one);
}

static void *answer(void *arg) {
    (void)arg;
    int poller = poller_of(there);
    for (uint64_t i = 0; i < total; i++) {
        wait_for(poller, there);
        wake(here);
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 3 || strcmp(arguments[1], "pingpong") != 0) {
        fprintf(stderr, "usage: %s pingpong COUNT\n", arguments[0]);
        return 2;
    }
    slice = strtoull(arguments[2], NULL, 10) / MICRO_SLICES;
    total = slice * (MICRO_SLICES + 5);
    here = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    there = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    micro_pin(0);
    pthread_t thread = micro_thread(1, answer, NULL);
    int poller = poller_of(here);
    for (uint64_t i = 1; i <= total; i++) {
        wake(there);
        wait_for(poller, here);
        if (i % slice == 0 && i >= slice * 5)
            micro_slice(&slices);
    }
    micro_tell("us", micro_median(&slices) / 1000 / (double)slice);
    pthread_join(thread, NULL);
    return 0;
}
