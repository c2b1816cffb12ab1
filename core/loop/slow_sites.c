#include "core/loop/slow_sites.h"

#include <string.h>

#include "core/loop/stats.h"

static void count(tram_slow_site *site, uint64_t took_ns) {
    stats_add(&site->count, 1);
    stats_add(&site->sum_ns, took_ns);
    stats_raise(&site->worst_ns, took_ns);
}

void tram__slow_sites_add(struct slow_sites *table, const char *kind, const void *function, uint64_t took_ns) {
    uint32_t known = atomic_load_explicit(&table->known, memory_order_relaxed);
    for (uint32_t i = 0; i < known; i++) {
        tram_slow_site *site = &table->sites[i];
        if ((site->function == function && strcmp(site->kind, kind) == 0) || i == TRAM_SLOW_SITES) {
            count(site, took_ns);
            return;
        }
    }
    tram_slow_site *site = &table->sites[known];
    site->kind = known < TRAM_SLOW_SITES ? kind : "other";
    site->function = known < TRAM_SLOW_SITES ? function : NULL;
    count(site, took_ns);
    atomic_store_explicit(&table->known, known + 1, memory_order_release);
}

size_t tram__slow_sites_read(const struct slow_sites *table, tram_slow_site *ret_sites, size_t count) {
    size_t known = atomic_load_explicit(&table->known, memory_order_acquire);
    for (size_t i = 0; i < known && i < count; i++) {
        const tram_slow_site *site = &table->sites[i];
        ret_sites[i] = (tram_slow_site){
            .kind = site->kind,
            .function = site->function,
            .count = stats_read(&site->count),
            .sum_ns = stats_read(&site->sum_ns),
            .worst_ns = stats_read(&site->worst_ns),
        };
    }
    return known;
}
