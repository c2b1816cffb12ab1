#include "core/loop/lag.h"

#include "core/loop/stats.h"

uint64_t tram_lag_bound(unsigned bucket) {
    return bucket < TRAM_LAG_BUCKETS - 1 ? (uint64_t)LAG_FIRST_BOUND_NS << bucket : TRAM_FOREVER;
}

void tram__lag_add(tram_lag *lag, uint64_t lag_ns) {
    stats_add(&lag->buckets[lag_bucket(lag_ns)], 1);
    stats_add(&lag->sum_ns, lag_ns);
    stats_raise(&lag->longest_ns, lag_ns);
}

void tram__lag_read(const tram_lag *lag, tram_lag *ret_lag) {
    *ret_lag = (tram_lag){.sum_ns = stats_read(&lag->sum_ns), .longest_ns = stats_read(&lag->longest_ns)};
    for (unsigned i = 0; i < TRAM_LAG_BUCKETS; i++)
        ret_lag->buckets[i] = stats_read(&lag->buckets[i]);
}
