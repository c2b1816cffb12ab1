/* The floor: sendfile(2) until the socket is full, then epoll until it is not. */
#include "sender.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

int main(int argc, char **argv) {
    int file = open_file(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    struct stat status;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (fstat(file, &status) < 0 || epoll < 0) {
        fail("fstat or epoll_create1");
    }
    int fd = accept_one();
    double before = cpu_seconds();
    struct epoll_event event = {.events = EPOLLOUT};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        fail("epoll_ctl");
    }
    off_t offset = 0;
    while (offset < status.st_size) {
        ssize_t sent = sendfile(fd, file, &offset, (size_t)(status.st_size - offset));
        if (sent < 0 && errno == EAGAIN) {
            epoll_wait(epoll, &event, 1, -1);
        } else if (sent <= 0) {
            fail("sendfile");
        }
    }
    close(fd);
    tell((unsigned long long)offset, cpu_seconds() - before);
    return 0;
}
