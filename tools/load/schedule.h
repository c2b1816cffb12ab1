/* When the requests of an open loop are due: at a constant rate, whatever the answers do. */
#ifndef TRAM_LOAD_SCHEDULE_H
#define TRAM_LOAD_SCHEDULE_H

#include <stdint.h>

typedef struct schedule {
    uint64_t start_ns;
    double period_ns;
    double phase; /* part of a period, 0 to 1, by which everything is later: keeps workers out of step */
} schedule;

/* When request `number`, from 0 on, is due. */
uint64_t schedule_time(const schedule *self, uint64_t number);

/* How many requests are due at `now_ns`: number n is due if and only if n < schedule_count(). */
uint64_t schedule_count(const schedule *self, uint64_t now_ns);

/*
 * Requests are dealt to connections in turn: number n belongs to connection n % connections. How many of the
 * first `count` belong to connection `turn`.
 */
uint64_t schedule_share(uint64_t count, uint64_t turn, uint64_t connections);

#endif
