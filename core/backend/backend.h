/* The backends that there are, and which one a new loop gets. */
#ifndef TRAM_CORE_BACKEND_BACKEND_H
#define TRAM_CORE_BACKEND_BACKEND_H

#include "core/loop/poller.h"
#include "core/system/sys.h"
#include <tram/loop.h>

extern const struct poller_ops tram__poller_epoll;

/* tram_loop_new() with another system-call table (tests); `sys` must outlive the loop. */
int tram__loop_new(const tram_loop_options *options, const struct sys *sys, tram_loop **ret_loop);

#endif
