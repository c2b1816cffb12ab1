#include "transports/socket/reuseport.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <string.h>
#include <unistd.h>

int tram__reuseport_steer(const struct sys *sys, int fd, tram_steer steer, unsigned count) {
    unsigned from = (unsigned)(SKF_AD_OFF + (steer == TRAM_STEER_CPU ? SKF_AD_CPU : SKF_AD_RXHASH));
    /* The result counts the sockets in the order in which they began to listen. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, from),
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, count),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program;
    memset(&program, 0, sizeof program); /* with its padding, which the kernel copies */
    program.len = sizeof code / sizeof *code;
    program.filter = code;
    return sys->setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0 ? -errno : 0;
}

bool tram__reuseport_migrates(void) {
    char digit = '0';
    int fd = open("/proc/sys/net/ipv4/tcp_migrate_req", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    if (read(fd, &digit, 1) != 1)
        digit = '0';
    close(fd);
    return digit != '0';
}
