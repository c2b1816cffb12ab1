#include "load/schedule.h"

uint64_t schedule_time(const schedule *self, uint64_t number) {
    return self->start_ns + (uint64_t)(((double)number + self->phase) * self->period_ns);
}

uint64_t schedule_count(const schedule *self, uint64_t now_ns) {
    if (now_ns < self->start_ns) {
        return 0;
    }
    uint64_t count = (uint64_t)((double)(now_ns - self->start_ns) / self->period_ns);
    /* The quotient is one off at most: by the phase, or by rounding. */
    while (count > 0 && schedule_time(self, count - 1) > now_ns) {
        count--;
    }
    while (schedule_time(self, count) <= now_ns) {
        count++;
    }
    return count;
}

uint64_t schedule_share(uint64_t count, uint64_t turn, uint64_t connections) {
    return (count + connections - 1 - turn) / connections;
}
