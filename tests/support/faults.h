/*
 * System calls that fail on order, for tests of one connection: a table for world_use_sys() that can make the kernel
 * look full at an exact byte, and tells arming for reading from arming for writing. For the n-th call of a kind, and
 * for whole scenarios, there is tram/fault.h.
 */
#ifndef TRAM_TESTS_FAULTS_H
#define TRAM_TESTS_FAULTS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/system/sys.h"

/* One system call: `skip` calls go through, then `fail` calls fail with `error`, then all go through again. */
struct fault {
    unsigned calls;
    unsigned skip;
    unsigned fail;
    int error;
};

#define FAULT_ALWAYS UINT_MAX

struct faults {
    struct fault send; /* all ways of sending are one here: which of them is used is nobody's business */
    struct fault recv; /* with or without descriptors */
    struct fault recvfrom;
    struct fault sendfile;
    struct fault shutdown;
    struct fault arm_read;  /* epoll_ctl that newly asks for EPOLLIN only */
    struct fault arm_write; /* epoll_ctl that asks for EPOLLOUT */
    struct fault getsockname;
    struct fault setsockopt;
    size_t send_budget;      /* bytes that the kernel still takes before it says EAGAIN; SIZE_MAX: as it likes */
    size_t send_at_most;     /* bytes that one call takes; SIZE_MAX: as it likes */
    size_t recv_at_most;     /* bytes that one receive into one place brings; SIZE_MAX: as many as there are */
    size_t sendfile_at_most; /* bytes that one sendfile takes; SIZE_MAX: as it likes */
    size_t sendfile_most;    /* the most that one was asked to send */
    size_t pieces_at_most;   /* the longest gathering send seen */
    size_t datagram_budget;  /* messages of sendto and sendmmsg that the kernel still takes; SIZE_MAX: as it likes */
    unsigned messages;       /* that sendto and sendmmsg have sent */
    unsigned joined;         /* … of these, with more than one datagram */
    int join_error;          /* with which joined ones fail; 0: as the kernel likes */
    bool cannot_join;        /* a kernel that does not know how */
};

extern struct faults faults;

/* Forgets all orders and counts; returns the table. */
const struct sys *faults_sys(void);

/* Lets the next `times` calls fail with `error`. */
void fail_next(struct fault *fault, int error, unsigned times);

#endif
