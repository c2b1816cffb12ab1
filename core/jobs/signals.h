/* Signals from the inside: tram/signal.h. */
#ifndef TRAM_CORE_JOBS_SIGNALS_H
#define TRAM_CORE_JOBS_SIGNALS_H

#include "core/loop/loop.h"

/* When the signal came last, on the monotonic clock, wherever it is handled by a loop; 0: never. Any thread. */
uint64_t tram__signal_came_ns(int number);

#endif
